"""RunPod's resources against an account in memory: what is sent, what is kept, what is never lost."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from test_lifecycle_invariants import LABEL, Invariants, context

from providers.base import Interrupted, NoCapacity, PlatformError
from providers.native import UNKNOWN, Context, Created
from providers.runpod import answers, pod_terms
from providers.runpod.answers import exec_form
from providers.runpod.client import RunPod
from providers.runpod.pod_terms import PodInputs
from providers.runpod.pods import PodOutputs, PodResource
from providers.runpod.vault import SecretInputs, SecretResource, name_of
from serving.rented import from_output

SOLD_OUT = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)
L4, A4000 = "NVIDIA L4", "NVIDIA RTX A4000"
CATALOGUE = [
    {
        "id": L4,
        "name": "L4",
        "pool": "AMPERE_24",
        "secure": True,
        "community": True,
        "price": {"secure": 0.39, "community": 0.32, "serverless": 0.684},
    },
    {
        "id": A4000,
        "name": "RTX A4000",
        "pool": "AMPERE_16",
        "secure": True,
        "community": True,
        "price": {"secure": 0.25, "community": 0.17, "serverless": 0.576},
    },
]


class Account:
    """RunPod's control plane in memory: as much of it as the resources talk to, with faults on command.

    `faults` maps a call (`create`, `list`, `get`, `destroy`, `update`, `catalog`) to how its next use fails:
    `timeout` and `dropped` before the deed, `lost` and `garbage` after it.
    """

    def __init__(self, faults: dict[str, str] | None = None) -> None:
        self.faults = dict(faults or {})
        self.things: dict[str, dict[str, Any]] = {}
        self.sent: list[tuple[str, str, Any]] = []
        self.sold_out: set[str] = set()
        self.forbidden: set[str] = set()
        self.cost = Decimal("0.26")
        self.place = "EU-RO-1"
        self.catalogue: list[dict[str, Any]] = CATALOGUE
        self.has_secrets = True
        self._ids = itertools.count(1)
        self.cloud = RunPod("rpa_test", transport=httpx.MockTransport(self._answer), pause=lambda seconds: None)

    def fail(self, faults: dict[str, str]) -> None:
        self.faults.update(faults)

    def bodies(self, method: str) -> list[Any]:
        return [body for verb, _, body in self.sent if verb == method]

    def calls(self) -> list[str]:
        return [f"{method} {path}" for method, path, _ in self.sent]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        method, path = request.method, request.url.path
        body = json.loads(request.content) if request.content else None
        self.sent.append((method, path, body))
        one = re.fullmatch(r"/v2/(pods|account/secrets)/([^/]+)(/action)?", path)
        call = {"PATCH": "update", "DELETE": "destroy"}.get(method, "get")
        if path == "/v2/catalog/gpus":
            call = "catalog"
        elif not one:
            call = "create" if method == "POST" else "list"
        fault = self.faults.pop(call, "")
        if fault in ("timeout", "dropped"):
            raise httpx.ReadTimeout("slow", request=request) if fault == "timeout" else httpx.ReadError("cut")
        done = self._do(call, path, body, one[2] if one else "")
        if fault == "lost":
            return _problem(500, "internal error")
        return httpx.Response(200, text="<html>") if fault == "garbage" else done

    def _do(self, call: str, path: str, body: Any, id: str) -> httpx.Response:
        match call:
            case "catalog":
                return httpx.Response(200, json={"gpus": self.catalogue})
            case "create":
                return self._create(path, body)
            case "list":
                return self._list(path)
            case "destroy":
                return httpx.Response(204) if self.things.pop(id, None) else _problem(404, "not found")
        found = self.things.get(id)
        if found is None:
            return _problem(404, "not found")
        if call == "update":
            found.update(body)
        elif path.endswith("/action"):
            if found["gpu"]["id"] in self.sold_out:
                return _problem(400, SOLD_OUT)
            found["status"] = "RUNNING"
        return httpx.Response(200, json=found)

    def _create(self, path: str, body: Any) -> httpx.Response:
        gpu = (body.get("gpu") or {}).get("id", "")
        if gpu in self.forbidden:
            return _problem(403, "no access")
        if gpu in self.sold_out:
            return _problem(400, SOLD_OUT)
        id = f"{path.rsplit('/', 1)[-1][:3]}{next(self._ids)}"
        made = {**body, "id": id, "createdAt": "2026-11-21T00:00:00Z"}
        if path == "/v2/pods":
            made |= {"status": "PROVISIONING", "cost": float(self.cost), "dataCenterId": self.place}
            made |= {"registry": body.get("registry"), "runtime": None, "startedAt": None, "cudaVersion": "13.0"}
        self.things[id] = made
        return httpx.Response(201, json=made)

    def _list(self, path: str) -> httpx.Response:
        if path == "/v2/account/secrets" and not self.has_secrets:
            return _problem(404, "not found")
        name = path.rsplit("/", 1)[-1]
        rows = [one for one in self.things.values() if one["id"].startswith(name[:3])]
        return httpx.Response(200, json={name: rows})


def _problem(status: int, detail: str) -> httpx.Response:
    return httpx.Response(status, json={"title": "Problem", "status": status, "detail": detail})


def pod_inputs(**changes: Any) -> PodInputs:
    fields: dict[str, Any] = {
        "label": LABEL,
        "gpus": [A4000, L4],
        "min_cuda": "13.0",
        "image": "vllm/vllm-openai:v0.27.1",
        "script": "exec vllm serve m",
        "api_key": SecretStr("sk-do-not-tell"),
        "data_centers": [["EU-RO-1", "EU-SE-1"]],
    }
    return PodInputs(**{**fields, **changes})


def up(account: Account, inputs: PodInputs | None = None, where: Context | None = None) -> Created[PodOutputs]:
    return PodResource().create_in(account.cloud, where or context(), inputs or pod_inputs())


class TestPod(Invariants):
    creating = ("list", "catalog", "create", "get")
    deleting = ("destroy", "get")

    def cloud(self, faults: dict[str, str]) -> Account:
        return Account(faults)

    def create(self, cloud: Account, where: Context) -> str:
        return up(cloud, where=where).id

    def delete(self, cloud: Account, where: Context, id: str) -> None:
        PodResource().delete_in(cloud.cloud, where, id)

    def existing(self, cloud: Account) -> list[str]:
        return list(cloud.things)

    def leave(self, cloud: Account) -> str:
        option = pod_terms.candidates(pod_inputs(), None)[0]
        return cloud.cloud.create("/v2/pods", pod_terms.create_body(pod_inputs(), option), answers.Pod, LABEL).id


def secret_inputs(value: str = "sk-do-not-tell", label: str = LABEL) -> SecretInputs:
    return SecretInputs(label=label, value=SecretStr(value))


class TestSecret(Invariants):
    creating = ("list", "create")
    deleting = ("destroy", "get")

    def cloud(self, faults: dict[str, str]) -> Account:
        return Account(faults)

    def create(self, cloud: Account, where: Context) -> str:
        return SecretResource().create_in(cloud.cloud, where, secret_inputs()).id

    def delete(self, cloud: Account, where: Context, id: str) -> None:
        SecretResource().delete_in(cloud.cloud, where, id)

    def existing(self, cloud: Account) -> list[str]:
        return list(cloud.things)

    def leave(self, cloud: Account) -> str:
        body = {"name": name_of(LABEL), "value": "old"}
        return cloud.cloud.create("/v2/account/secrets", body, answers.Named, LABEL).id

    def test_what_an_interrupted_create_left_is_adopted(self) -> None:
        """Not here: what a secret holds can't be read, so what is left of one is made anew."""
        cloud = self.cloud({})
        left = self.leave(cloud)
        made = self.create(cloud, context())
        assert made != left
        assert self.existing(cloud) == [made]


def test_a_secret_is_referred_to_by_a_name_that_a_reference_can_hold() -> None:
    account = Account()
    made = SecretResource().create_in(account.cloud, context(), secret_inputs())
    reference = made.outputs.reference.get_secret_value()
    assert re.fullmatch(r"\{\{ RUNPOD_SECRET_va_shop_dev_server_1_[0-9a-f]{8} \}\}", reference)
    assert "sk-do-not-tell" not in repr(made)


@given(st.lists(st.text(alphabet="ab/_-.1", min_size=1, max_size=12), min_size=2, unique=True))
def test_different_labels_have_different_secrets(labels: list[str]) -> None:
    names = [name_of(label) for label in labels]
    assert len(set(names)) == len(labels)
    assert all(re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) for name in names)


def test_without_a_secret_store_the_value_itself_is_the_reference_and_that_is_said() -> None:
    said: list[str] = []
    account = Account()
    account.has_secrets = False
    made = SecretResource().create_in(account.cloud, replace(context(), progress=said.append), secret_inputs())
    assert made.outputs.reference.get_secret_value() == "sk-do-not-tell"
    assert "in clear" in said[0]
    assert "sk-do-not-tell" not in said[0]
    assert SecretResource().read_in(account.cloud, made.id, secret_inputs(), made.outputs) is not None
    SecretResource().delete_in(account.cloud, context(), made.id)


def test_a_secret_deleted_by_hand_is_read_as_gone() -> None:
    account = Account()
    made = SecretResource().create_in(account.cloud, context(), secret_inputs())
    assert SecretResource().read_in(account.cloud, made.id, secret_inputs(), made.outputs) is not None
    account.things.clear()
    assert SecretResource().read_in(account.cloud, made.id, secret_inputs(), made.outputs) is None


def test_the_create_call_carries_label_key_script_and_every_field_with_a_surprising_default() -> None:
    account = Account()
    made = up(account)
    (body,) = account.bodies("POST")
    assert body == {
        "name": LABEL,
        "image": "vllm/vllm-openai:v0.27.1",
        "args": exec_form("exec vllm serve m"),
        "env": {"VLLM_API_KEY": "sk-do-not-tell"},
        "ports": ["8000/http"],
        "disk": 60,
        "gpu": {"id": A4000, "count": 1, "minCudaVersion": "13.0"},
        "cloud": "SECURE",
        "startSsh": False,
        "startJupyter": False,
        "dataCenterIds": ["EU-RO-1", "EU-SE-1"],
    }
    assert made.outputs.endpoint == f"https://{made.id}-8000.proxy.runpod.net/v1"
    assert (made.outputs.hourly_usd, made.outputs.data_center, made.problem) == ("0.26", "EU-RO-1", "")


def test_it_tells_what_it_rents_at_the_price_that_is_billed_also_while_it_is_stopped() -> None:
    account = Account()
    made = up(account)
    offer = from_output(made.outputs.offer)
    assert offer is not None
    assert (offer.gpu, offer.gpu_count, offer.tier, offer.region, offer.country) == (
        "RTX A4000",
        1,
        "secure",
        "EU-RO-1",
        "RO",
    )
    gpu, disk = offer.rates
    assert gpu.unit_price is not None and disk.unit_price is not None
    billed = gpu.unit_price + disk.unit_price * pod_inputs().disk_gb / 730
    assert billed == pytest.approx(Decimal(made.outputs.hourly_usd), abs=Decimal("0.0001"))
    account.things[made.id] |= {"status": "EXITED", "cost": 0}
    stopped = PodResource().read_in(account.cloud, made.id, pod_inputs(), made.outputs)
    assert stopped is not None and stopped.outputs.offer == made.outputs.offer


def test_a_volume_a_registry_and_a_secret_reference_are_sent_where_they_belong() -> None:
    reference = "{{ RUNPOD_SECRET_key }}"
    account = Account()
    up(account, pod_inputs(volume_id="v1", volume_path="/data", registry="r1", key_reference=SecretStr(reference)))
    (body,) = account.bodies("POST")
    assert body["mounts"] == {"network": [{"volumeId": "v1", "path": "/data"}]}
    assert body["registry"] == "r1"
    assert body["env"]["VLLM_API_KEY"] == reference


def test_what_is_sold_out_is_passed_over_in_the_listed_order() -> None:
    account = Account()
    account.sold_out = {A4000}
    account.cost = Decimal("0.40")
    assert up(account).outputs.gpu == L4
    assert [body["gpu"]["id"] for body in account.bodies("POST")] == [A4000, L4]


def test_without_a_wish_the_cheapest_is_asked_for_first() -> None:
    account = Account()
    assert up(account, pod_inputs(gpus=[L4, A4000], prefer="cheapest")).outputs.gpu == A4000


def test_places_are_tried_in_order_before_the_next_gpu() -> None:
    account = Account()
    account.sold_out = {A4000}
    account.place, account.cost = "EU-RO-1", Decimal("0.40")
    up(account, pod_inputs(data_centers=[["EU-RO-1"], ["US-TX-3"]]))
    asked = [(body["gpu"]["id"], body["dataCenterIds"]) for body in account.bodies("POST")]
    assert asked == [(A4000, ["EU-RO-1"]), (A4000, ["US-TX-3"]), (L4, ["EU-RO-1"])]


def test_when_nothing_is_free_it_says_what_was_tried_what_it_costs_and_what_to_do() -> None:
    account = Account()
    account.sold_out = {A4000, L4}
    with pytest.raises(NoCapacity) as caught:
        up(account)
    for words in (A4000, L4, "nothing is billed", "`pulumi up`", "vllm-anywhere:hardware.gpus"):
        assert words in str(caught.value)
    assert account.things == {}


def test_a_gpu_that_the_account_may_not_use_is_passed_over() -> None:
    account = Account()
    account.forbidden, account.cost = {A4000}, Decimal("0.40")
    assert up(account).outputs.gpu == L4


def test_a_gpu_that_is_not_listed_in_the_wanted_cloud_is_never_asked_for() -> None:
    account = Account()
    account.catalogue = [{**CATALOGUE[1], "secure": False}]
    with pytest.raises(NoCapacity, match="lists none of"):
        up(account)
    assert account.bodies("POST") == []


def test_a_pod_over_the_cap_is_deleted_again_and_the_error_says_so() -> None:
    account = Account()
    account.cost = Decimal("0.90")
    with pytest.raises(PlatformError, match=r"bills \$0.9 an hour, and the most allowed is \$0.50.*deleted again"):
        up(account, pod_inputs(max_hourly_usd="0.50"))
    assert account.things == {}


def test_a_pod_that_costs_more_than_the_list_says_is_deleted_again() -> None:
    account = Account()
    account.cost = Decimal("0.34")
    with pytest.raises(PlatformError, match=r"lists at \$0.2583.*max_hourly_usd"):
        up(account)
    assert account.things == {}


def test_what_costs_more_than_the_cap_by_the_list_is_never_rented() -> None:
    account = Account()
    with pytest.raises(NoCapacity, match="for at most"):
        up(account, pod_inputs(max_hourly_usd="0.10"))
    assert account.bodies("POST") == []


def test_a_pod_in_a_place_that_was_not_asked_for_is_deleted_again() -> None:
    account = Account()
    account.place = "US-TX-3"
    with pytest.raises(PlatformError, match="placed it in US-TX-3"):
        up(account)
    assert account.things == {}


def test_a_pod_that_should_go_but_does_not_keeps_its_id() -> None:
    account = Account()
    account.place = "US-TX-3"
    undying = account.cloud.delete
    account.cloud.delete = lambda path: None  # pyright: ignore
    made = up(account)
    account.cloud.delete = undying  # pyright: ignore
    assert made.id in account.things
    assert "still exists" in made.problem
    assert "$0.26 an hour" in made.problem


def test_a_cancel_right_after_the_create_keeps_the_id() -> None:
    account = Account()
    account.place = ""
    pauses = itertools.count()
    made = up(account, where=context(pause=lambda seconds: next(pauses) > 0))
    assert made.id in account.things
    assert "pulumi destroy" in made.problem


def test_without_a_list_price_only_a_cap_lets_it_go_on() -> None:
    account = Account({"catalog": "lost"})
    with pytest.raises(PlatformError, match="Nothing was created"):
        up(account)
    assert account.things == {}
    account.fail({"catalog": "lost"})
    assert up(account, pod_inputs(max_hourly_usd="0.50")).outputs.gpu == A4000


def test_a_lost_answer_is_looked_up_until_the_lagging_list_shows_it() -> None:
    account = Account({"create": "lost"})
    listed = account.cloud.all
    looks = itertools.count()

    def lagging(path: str, *args: Any) -> Any:
        return [] if path == "/v2/pods" and next(looks) < 3 else listed(path, *args)

    account.cloud.all = lagging  # pyright: ignore
    made = up(account)
    assert list(account.things) == [made.id]


def test_what_is_left_on_a_gpu_that_will_not_do_is_replaced_not_adopted() -> None:
    account = Account()
    TestPod().leave(account)
    account.cost = Decimal("0.40")
    made = up(account, pod_inputs(gpus=[L4]))
    assert list(account.things) == [made.id]
    assert made.outputs.gpu == L4


def test_an_update_changes_in_place_only_what_differs_and_keeps_what_runpod_put_in() -> None:
    account = Account()
    made = up(account)
    account.things[made.id]["env"] |= {"RUNPOD_POD_ID": made.id}
    old, new = pod_inputs(), pod_inputs(script="exec vllm serve other", api_key=SecretStr("sk-other"))
    updated = PodResource().update_in(account.cloud, context(), made.id, made.outputs, old, new)
    (body,) = account.bodies("PATCH")
    assert body == {
        "args": exec_form("exec vllm serve other"),
        "env": {"RUNPOD_POD_ID": made.id, "VLLM_API_KEY": "sk-other"},
    }
    assert updated.outputs.run != made.outputs.run


def test_only_other_keys_than_the_pod_has_need_another_pod() -> None:
    account = Account()
    reference, before = SecretStr("{{ RUNPOD_SECRET_va_2 }}"), SecretStr("{{ RUNPOD_SECRET_va_1 }}")
    made = up(account, pod_inputs(key_reference=reference, previous_reference=before))
    (body,) = account.bodies("POST")
    assert body["env"]["ANYWHERE_PREVIOUS_KEY"] == before.get_secret_value()
    outputs = made.outputs.model_dump() | {"keys": made.outputs.keys.get_secret_value()}
    asked = frozenset({"api_key", "key_reference", "previous_reference"})
    known = {"api_key": "sk-2", "key_reference": reference.get_secret_value()}
    resource = PodResource()
    assert resource.satisfied(asked, {**known, "previous_reference": before.get_secret_value()}, outputs) == asked
    assert (
        resource.satisfied(asked, {**known, "previous_reference": "{{ RUNPOD_SECRET_va_2 }}"}, outputs) == frozenset()
    )
    assert resource.satisfied(asked, {**known, "previous_reference": UNKNOWN}, outputs) == frozenset()
    imported = resource.read_in(account.cloud, made.id, None, None)
    assert imported is not None and imported.inputs.previous_reference == before
    assert reference.get_secret_value() not in repr(made.outputs)


def test_an_update_that_changes_nothing_there_sends_nothing_and_does_not_restart() -> None:
    account = Account()
    made = up(account)
    updated = PodResource().update_in(
        account.cloud, context(), made.id, made.outputs, pod_inputs(), pod_inputs(max_hourly_usd="0.50")
    )
    assert account.bodies("PATCH") == []
    assert updated.outputs.run == made.outputs.run


def test_an_update_below_the_running_price_is_refused_and_the_pod_goes_on() -> None:
    account = Account()
    made = up(account)
    with pytest.raises(PlatformError, match="goes on as before; it bills"):
        PodResource().update_in(
            account.cloud, context(), made.id, made.outputs, pod_inputs(), pod_inputs(max_hourly_usd="0.10")
        )
    assert list(account.things) == [made.id]


def test_a_stopped_pod_is_seen_as_drift_and_started_again() -> None:
    account = Account()
    made = up(account)
    account.things[made.id] |= {"status": "EXITED", "cost": 0}
    found = PodResource().read_in(account.cloud, made.id, pod_inputs(), made.outputs)
    assert found is not None
    assert found.inputs == pod_inputs(status="exited")
    PodResource().update_in(account.cloud, context(), made.id, found.outputs, found.inputs, pod_inputs())
    assert account.things[made.id]["status"] == "RUNNING"


def test_a_stopped_pod_whose_gpu_was_taken_says_how_to_rent_another() -> None:
    account = Account()
    made = up(account)
    account.things[made.id] |= {"status": "EXITED", "cost": 0}
    account.sold_out.add(A4000)
    with pytest.raises(PlatformError, match=r"can't be started again.*nothing is billed.*`pulumi up --replace 'urn'`"):
        PodResource().update_in(
            account.cloud, context(), made.id, made.outputs, pod_inputs(status="exited"), pod_inputs()
        )
    again = up(account)
    assert list(account.things) == [again.id]
    assert again.outputs.gpu == L4


def test_a_pod_that_is_gone_or_terminated_is_read_as_gone() -> None:
    account = Account()
    made = up(account)
    account.things[made.id]["status"] = "TERMINATED"
    assert PodResource().read_in(account.cloud, made.id, pod_inputs(), made.outputs) is None
    account.things.clear()
    assert PodResource().read_in(account.cloud, made.id, pod_inputs(), made.outputs) is None


def test_what_was_changed_by_hand_is_drift_and_the_rest_is_not() -> None:
    account = Account()
    made = up(account)
    account.things[made.id] |= {"disk": 80, "image": "vllm/vllm-openai:v0.26.0"}
    found = PodResource().read_in(account.cloud, made.id, pod_inputs(), made.outputs)
    assert found is not None
    assert found.inputs == pod_inputs(disk_gb=80, image="vllm/vllm-openai:v0.26.0")


def test_an_import_says_what_is_there() -> None:
    account = Account()
    made = up(account)
    found = PodResource().read_in(account.cloud, made.id, None, None)
    assert found is not None
    assert found.inputs == pod_inputs(gpus=[A4000], data_centers=[["EU-RO-1"]], min_cuda="")
    assert found.outputs.endpoint == made.outputs.endpoint


def test_a_container_that_can_not_start_keeps_its_id_and_says_what_it_bills() -> None:
    account = Account()
    id = TestPod().leave(account)
    account.things[id]["status"] = "ERROR"
    created = account.cloud.create
    account.things.clear()

    def broken(*args: Any) -> Any:
        return created(*args).model_copy(update={"status": "ERROR"})

    account.cloud.create = broken  # pyright: ignore
    made = up(account)
    assert made.id in account.things
    assert "it bills $0.26 an hour" in made.problem


def test_deleting_shows_that_it_is_still_there_and_what_it_bills() -> None:
    account = Account()
    made = up(account)
    said: list[str] = []
    gone = iter([False, False, True])
    delete, get = account.cloud.delete, account.cloud.get

    def slow(path: str, kind: Any) -> Any:
        return None if next(gone) else get(path, kind)

    account.cloud.delete, account.cloud.get = (lambda path: None), slow  # pyright: ignore
    PodResource().delete_in(account.cloud, replace(context(), progress=said.append), made.id)
    account.cloud.delete, account.cloud.get = delete, get  # pyright: ignore
    assert said[1:] == [f"{made.id} is still provisioning; it bills $0.26 an hour"] * 2


def test_a_cancelled_delete_ends_at_once_and_keeps_the_id() -> None:
    account = Account()
    made = up(account)
    account.cloud.delete = lambda path: None  # pyright: ignore
    with pytest.raises(Interrupted):
        PodResource().delete_in(account.cloud, context(pause=lambda seconds: True), made.id)


def test_no_error_and_no_progress_shows_a_secret() -> None:
    said: list[str] = []
    for faults in TestPod().faults(("list", "catalog", "create", "get", "destroy")):
        account = Account(faults)
        where = replace(context(), progress=said.append)
        try:
            made = up(account, where=where)
            said.append(made.problem)
            said.append(repr(made))
            PodResource().delete_in(account.cloud, where, made.id)
        except PlatformError as error:
            said.append(repr(error))
    assert said
    assert not [text for text in said if "sk-do-not-tell" in text or "rpa_test" in text]


@given(
    order=st.permutations([A4000, L4]),
    prefer=st.sampled_from(["listed", "cheapest"]),
    cap=st.sampled_from(["", "0.20", "0.30", "0.50"]),
    clouds=st.permutations(["SECURE", "COMMUNITY"]),
)
def test_candidates_keep_to_cap_and_order(order: list[str], prefer: Any, cap: str, clouds: Any) -> None:
    listed = {
        (L4, "SECURE"): Decimal("0.39"),
        (L4, "COMMUNITY"): Decimal("0.32"),
        (A4000, "SECURE"): Decimal("0.25"),
        (A4000, "COMMUNITY"): Decimal("0.17"),
    }
    inputs = pod_inputs(gpus=order, prefer=prefer, max_hourly_usd=cap, clouds=clouds)
    found = pod_terms.candidates(inputs, listed)
    prices = [option.listed for option in found if option.listed is not None]
    assert len(prices) == len(found)
    assert all(price <= Decimal(cap or "9") for price in prices)
    assert {(o.gpu, o.cloud) for o in found} == {pair for pair, price in listed.items() if price <= Decimal(cap or "9")}
    if prefer == "cheapest":
        assert prices == sorted(prices)
    else:
        assert [option.gpu for option in found] == sorted((o.gpu for o in found), key=order.index)


def test_a_cap_that_is_no_amount_is_refused_in_preview() -> None:
    (failure,) = PodResource().check({"max_hourly_usd": "cheap"})
    assert failure.property == "max_hourly_usd"
    assert PodResource().check({"max_hourly_usd": "0.5"}) == []
