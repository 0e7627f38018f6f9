"""What is looked at before `up`, and what of ours is found; Google's answers are emulated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from providers.account import Check, Holding
from providers.base import AuthError, PlatformError
from providers.gcp.account import GcpAccount
from providers.gcp.auth import Identity
from providers.gcp.checks import APIS, PERMISSIONS
from providers.gcp.client import Google
from providers.gcp.machines import zones_with
from providers.gcp.resources import slug_of
from providers.native import Context

STACK = "vllm-anywhere/gcp-t4"
SLUG = slug_of(f"{STACK}/name/1")
LABELS = {"managed-by": "vllm-anywhere", "vllm-anywhere": SLUG}
COMPUTE = "https://www.googleapis.com/compute/v1"
ENOUGH = {"limit": 1, "usage": 0}
METRICS = [f"{spot}NVIDIA_{card}_GPUS" for card in ("T4", "L4") for spot in ("", "PREEMPTIBLE_")]

Answer = tuple[int, Any]


def project(answer: Callable[[httpx.Request], Answer], name: str = "shop") -> GcpAccount:
    def respond(request: httpx.Request) -> httpx.Response:
        status, body = answer(request)
        return httpx.Response(status, json=body)

    return GcpAccount(Google(Identity("token", name), transport=httpx.MockTransport(respond), environ={}))


def checked(**changes: Answer) -> list[Check]:
    """The checks of a project in which everything is as it should be but for some answers, by the path's last part."""
    zones = [{f"zones/{zone}": {"acceleratorTypes": [{}]} for zone in zones_with(card)} for card in ("T4", "L4")]
    table: Mapping[str, Answer] = {
        "shop": (200, {"quotas": [{"metric": "GPUS_ALL_REGIONS", **ENOUGH}]}),
        "regions": (200, {"items": [{"name": "r1", "quotas": [{"metric": one, **ENOUGH} for one in METRICS]}]}),
        "billingInfo": (200, {"billingEnabled": True}),
        "shop:testIamPermissions": (200, {"permissions": list(PERMISSIONS)}),
        "ubuntu-accelerator-2404-amd64-with-nvidia-580": (200, {"name": "ubuntu-580-v20260225"}),
        **{api: (200, {"state": "ENABLED"}) for api in APIS},
        **changes,
    }

    def answer(request: httpx.Request) -> Answer:
        last = request.url.path.rsplit("/", 1)[1]
        if last == "acceleratorTypes" and last not in table:
            return 200, {"items": zones["l4" in request.url.params["filter"]]}
        return table[last]

    return list(project(answer).checks())


def test_a_project_in_order_passes_every_check() -> None:
    found = checked()
    assert [check.name for check in found if check.verdict != "ok"] == []
    assert {check.name for check in found} == {"billing", "APIs", "permissions", "zones", "quotas", "image"}
    assert "ubuntu-580-v20260225" in found[-1].text


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("billing", {"billingInfo": (200, {"billingEnabled": False})}, "no active billing account"),
        ("APIs", {APIS[1]: (200, {"state": "DISABLED"})}, f"gcloud services enable {APIS[1]} --project=shop"),
        ("permissions", {"shop:testIamPermissions": (200, {})}, "--role=roles/compute.admin"),
        ("quotas", {"shop": (200, {"quotas": [{"metric": "GPUS_ALL_REGIONS", "limit": 0}]})}, "no GPU may be used"),
        (
            "image",
            {"ubuntu-accelerator-2404-amd64-with-nvidia-580": (404, {"error": {"message": "images/x' was not found"}})},
            "gcloud compute images list",
        ),
    ],
)
def test_what_is_wrong_says_what_to_do_and_hides_no_other_check(name: str, changes: dict[str, Any], words: str) -> None:
    found = checked(**changes)
    (wrong,) = [check for check in found if check.verdict == "failed"]
    assert wrong.name == name
    assert words in f"{wrong.text} {wrong.next}"
    assert len(found) == len(checked())


def test_a_permission_that_is_lacking_is_named_alone() -> None:
    few = [one for one in PERMISSIONS if one != "iam.serviceAccounts.actAs"]
    (wrong,) = [check for check in checked(**{"shop:testIamPermissions": (200, {"permissions": few})}) if check.next]
    assert wrong.text == "lacking: iam.serviceAccounts.actAs"
    assert wrong.next.endswith("--role=roles/iam.serviceAccountUser")


def test_a_quota_of_a_region_says_where_it_is_free_and_where_it_is_used_up() -> None:
    def region(name: str, limit: int, usage: int) -> dict[str, Any]:
        return {"name": name, "quotas": [{"metric": "NVIDIA_T4_GPUS", "limit": limit, "usage": usage}]}

    found = checked(regions=(200, {"items": [region("r1", 1, 0), region("r2", 1, 1), region("r3", 0, 0)]}))
    said = {check.text: check.verdict for check in found if check.name == "quotas"}
    assert said["NVIDIA_T4_GPUS: free in r1; all in use in r2"] == "ok"
    assert said["NVIDIA_L4_GPUS: 0 in every region"] == "warning"


def test_a_zone_that_google_no_longer_has_is_told() -> None:
    said = [check for check in checked(acceleratorTypes=(200, {"items": {}})) if check.name == "zones"]
    assert [check.verdict for check in said] == ["warning", "warning"]
    assert "no longer in" in said[0].text and "europe-west4-a" in said[0].text


def test_without_a_project_nothing_is_asked() -> None:
    with pytest.raises(AuthError, match="GOOGLE_PROJECT"):
        project(lambda request: (500, {}), name="").identify()


def described(kind: str, name: str, **more: Any) -> dict[str, Any]:
    link = f"{COMPUTE}/projects/shop/zones/europe-west4-a"
    return {"name": name, "selfLink": f"{link}/{kind}/{name}", "labels": LABELS, "zone": link, **more}


def vm(name: str, **more: Any) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "status": "RUNNING",
        "machineType": f"{COMPUTE}/projects/shop/zones/z/machineTypes/n1-standard-4",
        "guestAccelerators": [{"acceleratorType": f"{COMPUTE}/nvidia-tesla-t4", "acceleratorCount": 1}],
        "disks": [{"diskSizeGb": "60"}],
    }
    return described("instances", name, **{**shape, **more})


def held(stacks: frozenset[str] = frozenset({STACK}), **lists: list[dict[str, Any]]) -> list[Holding]:
    def answer(request: httpx.Request) -> Answer:
        kind = request.url.path.rsplit("/", 1)[1]
        if kind == "secrets":
            return 200, {"secrets": lists.get(kind, [])}
        return 200, {"items": {"zones/europe-west4-a": {kind: lists.get(kind, [])}, "zones/empty": {}}}

    return project(answer).holdings(stacks)


def test_what_is_ours_is_found_with_its_label_and_its_price() -> None:
    region = f"{COMPUTE}/projects/shop/regions/europe-west4"
    found = held(
        instances=[vm("one"), vm("two", status="TERMINATED"), vm("theirs", labels={})],
        addresses=[described("addresses", name, status=name.upper(), region=region) for name in ("in_use", "reserved")],
        disks=[described("disks", "left", sizeGb="60"), described("disks", "used", users=["a VM"])],
        secrets=[{"name": f"projects/123/secrets/{SLUG}-api-key", "labels": LABELS}],
    )
    assert [(one.kind, one.id.rpartition("/")[2], one.label.removeprefix(STACK)) for one in found] == [
        ("instance", "one", "/server/1"),
        ("instance", "two", "/server/1"),
        ("disk", "left", "/server/1"),
        ("address", "in_use", "/address/1"),
        ("address", "reserved", "/address/1"),
        ("secret", f"{SLUG}-api-key", "/api-key-secret/1"),
    ]
    assert found[0].id == "projects/shop/zones/europe-west4-a/instances/one"
    assert found[-1].id == f"projects/shop/secrets/{SLUG}-api-key"
    disk = Decimal("0.11") * 60 / 730
    machine = Decimal("0.3675") + 4 * Decimal("0.034802") + 15 * Decimal("0.004664")
    assert [one.hourly_usd for one in found] == [
        machine + disk,
        disk,
        disk,
        Decimal("0.005"),
        Decimal("0.011"),
        None,
    ]


def test_a_group_is_found_by_a_known_stacks_name_and_its_vm_goes_with_it() -> None:
    made = {"items": [{"key": "created-by", "value": "a group"}]}
    groups = [described("instanceGroupManagers", name, labels={}) for name in (SLUG, "theirs")]
    lists = {"instances": [vm("made", metadata=made)], "instanceGroupManagers": groups}
    assert [(one.kind, one.label) for one in held(**lists)] == [("group", f"{STACK}/server/1")]
    assert held(frozenset(), **lists) == []


def test_what_is_of_no_known_stack_is_shown_by_its_name_on_google_cloud() -> None:
    assert [one.label for one in held(frozenset(), instances=[vm("one")])] == [SLUG]


def test_a_list_that_breaks_off_never_counts_as_complete() -> None:
    left: list[Answer] = [(200, {"items": {}, "nextPageToken": "2"}), (503, {"error": {}})]
    with pytest.raises(PlatformError):
        project(lambda request: left.pop(0)).holdings(frozenset())


def test_a_delete_waits_until_google_is_done_and_tells_what_it_says() -> None:
    waited: list[float] = []
    context = Context("", print, lambda s: bool(waited.append(s)), lambda: sum(waited), lambda: datetime.now(UTC))
    holding = Holding("instance", "projects/shop/zones/z/instances/one", "", "", None)
    left: list[Answer] = [(200, {"name": "op", "status": "RUNNING"}), (200, {"name": "op", "status": "DONE"})]
    project(lambda request: left.pop(0)).release(context, holding)
    assert left == [] and waited == [2.0]
    project(lambda request: (404, {"error": {"message": "gone"}})).release(context, holding)
    failed = {"name": "op", "status": "DONE", "error": {"errors": [{"message": "it is protected"}]}}
    with pytest.raises(PlatformError, match="it is protected"):
        project(lambda request: (200, failed)).release(context, holding)
    with pytest.raises(PlatformError, match="not deleted it within"):
        project(lambda request: (200, {"name": "op", "status": "RUNNING"})).release(context, holding)
