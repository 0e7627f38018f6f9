"""Modal's resources against the emulated control plane: what is deployed, kept, adopted, refused and stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from emulators.faults import Fault, Kind
from emulators.modal import ModalEmulator
from emulators.modal.emulator import RPC, TOKEN
from pydantic import SecretStr
from test_lifecycle_invariants import LABEL, Invariants, context

from providers.base import AuthError, Interrupted, PlatformError
from providers.modal import vllm_anywhere_start
from providers.modal.apps import App, AppInputs, revision_of
from providers.modal.client import Modal, connect
from providers.modal.labels import label_in, name_of, owns, tags_of
from providers.modal.volumes import VolumeInputs, VolumeResource
from providers.native import UNKNOWN
from serving.spec import DeploymentSpec
from serving.start import start_script

pytestmark = pytest.mark.heavy

ID = "main/shop-dev-server-1"
KEY = "sk-of-the-stack"
OWNER = "3fa9c2d1"
CACHE = VolumeInputs(label=f"shop/dev/cache/1-{OWNER}", environment="main")


@pytest.fixture
def modal(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModalEmulator]:
    with ModalEmulator() as emulator:
        for name, value in emulator.env().items():
            monkeypatch.setenv(name, value)
        yield emulator
        assert emulator.violations == []


def cloud_of(modal: ModalEmulator, pause: Any = lambda seconds: False) -> Modal:
    """An account whose time-outs pass as soon as a call gets no answer."""
    return Modal(TOKEN, pause, lambda: 1e6 * modal.hung)


def wanted(**changes: Any) -> AppInputs:
    spec = DeploymentSpec.model_validate({"model": {"served_name": "qwen3-4b"}})
    script = start_script(spec, half=False, port=8000, tls=False)
    given = {"label": LABEL, "environment": "main", "gpus": ["A10"], "image": "vllm/vllm-openai:v0.27.1"}
    return AppInputs(**{**given, "script": script, "api_key": SecretStr(KEY), **changes})  # pyright: ignore


def created(modal: ModalEmulator, **changes: Any) -> AppInputs:
    inputs = wanted(**changes)
    assert App().create_in(cloud_of(modal), context(), inputs).id == ID
    return inputs


def models(endpoint: str, key: str = KEY) -> httpx.Response:
    return httpx.get(f"{endpoint}/models", headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False)


def test_what_is_sent_is_what_was_asked_for(modal: ModalEmulator) -> None:
    volume = VolumeResource().create_in(cloud_of(modal), CACHE).outputs.name
    created(
        modal,
        gpus=["L4", "A10"],
        gpu_count=2,
        cpu=6,
        memory_gib=24,
        regions=["eu"],
        routing_region="eu-west",
        volume=volume,
        env={"HF_HOME": "/cache/huggingface"},
        min_containers=1,
        max_containers=3,
        scaledown_window_s=120,
        concurrency=16,
        timeout_s=700,
        hf_token=SecretStr("hf_of_the_user"),
    )
    (app,) = modal.deployed
    first, second = app.functions["serve"].ranked
    gpus = [(one.resources.gpu_config.gpu_type, one.resources.gpu_config.count) for one in (first, second)]
    assert gpus == [("L4", 2), ("A10", 2)]
    assert (first.resources.milli_cpu, first.resources.memory_mb) == (6000, 24 * 1024)
    assert list(first.scheduler_placement.regions) == ["eu"]
    assert first.routing_region == "eu-west"
    scaling = first.autoscaler_settings
    assert (scaling.min_containers, scaling.max_containers, scaling.scaledown_window) == (1, 3, 120)
    assert (first.max_concurrent_inputs, first.timeout_secs) == (16, 700)
    assert (first.webhook_config.web_server_port, first.webhook_config.requires_proxy_auth) == (8000, False)
    assert [mount.mount_path for mount in first.volume_mounts] == ["/cache"]
    (secret,) = (modal.workspace.secrets[id] for id in first.secret_ids)
    assert secret["VLLM_API_KEY"] == KEY
    assert secret["HF_TOKEN"] == "hf_of_the_user"
    assert secret["HF_HOME"] == "/cache/huggingface"
    assert owns(LABEL, app.tags)


def test_modal_is_not_told_whose_checkout_it_is(
    modal: ModalEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=author@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "remote", "add", "origin", "https://token@example.org/repository"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    monkeypatch.chdir(tmp_path)
    created(modal)
    (published,) = [call.request for call in modal.rpcs if call.name == "AppPublish"]
    assert "commit_info" not in published
    assert "GIT_DIR" not in os.environ


def test_deploys_at_the_same_time_leave_the_environment_as_it_was(modal: ModalEmulator) -> None:
    both = threading.Barrier(2)

    def deploy(owner: str) -> None:
        both.wait(10)
        App().create_in(cloud_of(modal), context(), wanted(label=f"{LABEL}-{owner}"))

    deploys = [threading.Thread(target=deploy, args=(owner,)) for owner in (OWNER, "0badcafe")]
    for one in deploys:
        one.start()
    for one in deploys:
        one.join(60)
    assert len(modal.deployed) == 2
    assert "GIT_DIR" not in os.environ


def test_the_guard_lets_in_who_has_the_key(modal: ModalEmulator) -> None:
    endpoint = App().create_in(cloud_of(modal), context(), wanted()).outputs.endpoint
    assert "qwen3-4b" in models(endpoint).text
    assert models(endpoint, "sk-of-somebody-else").status_code == 401
    base = endpoint.removesuffix("/v1")
    for path in ("/invocations", "/tokenize", "/metrics", "/docs"):
        assert httpx.post(f"{base}{path}", timeout=60, trust_env=False).status_code in (401, 404)


def test_the_same_again_is_no_new_version(modal: ModalEmulator) -> None:
    inputs = created(modal)
    again = App().create_in(cloud_of(modal), context(), inputs)
    assert again.outputs.version == 1
    assert len(modal.deployed) == 1


def test_scaling_changes_without_a_new_version_and_restarts_nothing(modal: ModalEmulator) -> None:
    old = created(modal)
    cloud, outputs = cloud_of(modal), App().read_in(cloud_of(modal), ID, None, None)
    assert outputs is not None
    models(outputs.outputs.endpoint)
    (container,) = modal.deployed[0].tasks
    new = old.model_copy(update={"max_containers": 4, "scaledown_window_s": 300})
    updated = App().update_in(cloud, context(), ID, outputs.outputs, old, new)
    assert updated.outputs.run == outputs.outputs.run
    assert modal.deployed[0].version == 1
    assert modal.deployed[0].tasks == [container]
    assert modal.deployed[0].functions["serve"].settings.max_containers == 4


def test_a_new_key_is_a_new_version_and_the_old_containers_end(modal: ModalEmulator) -> None:
    old = created(modal)
    first = App().read_in(cloud_of(modal), ID, None, None)
    assert first is not None
    assert models(first.outputs.endpoint).is_success
    new = old.model_copy(update={"api_key": SecretStr("sk-another")})
    updated = App().update_in(cloud_of(modal), context(), ID, first.outputs, old, new)
    assert updated.outputs.endpoint == first.outputs.endpoint
    assert updated.outputs.run != first.outputs.run
    assert models(updated.outputs.endpoint, "sk-another").is_success
    assert models(updated.outputs.endpoint).status_code == 401


def test_an_app_of_somebody_else_is_never_deployed_over(modal: ModalEmulator) -> None:
    created(modal)
    modal.deployed[0].tags = {"team": "search"}
    with pytest.raises(PlatformError, match=r"deployed by something else; nothing was changed.*pulumi import"):
        App().create_in(cloud_of(modal), context(), wanted(gpus=["L4"]))
    assert modal.deployed[0].version == 1


def test_an_app_of_another_stack_under_the_same_name_is_not_ours(modal: ModalEmulator) -> None:
    created(modal)
    other = wanted(label="shop-dev/server/1/1")
    assert name_of(other.label) != name_of(LABEL)
    clash = wanted(label="shop/dev-server/1/1")
    assert name_of(other.label) == name_of(clash.label)
    App().create_in(cloud_of(modal), context(), other)
    with pytest.raises(PlatformError, match="is shop-dev/server/1/1 of this tool"):
        App().create_in(cloud_of(modal), context(), clash)


def test_a_delete_leaves_alone_what_has_taken_the_name_since(modal: ModalEmulator) -> None:
    created(modal)
    modal.deployed[0].tags = {"team": "search"}
    App().delete_in(cloud_of(modal), context(), ID, LABEL)
    assert [app.name for app in modal.deployed] == ["shop-dev-server-1"]


def test_a_delete_waits_for_the_answers_that_are_being_given(modal: ModalEmulator) -> None:
    created(modal, min_containers=1)
    (task,) = modal.deployed[0].tasks
    task.busy = 1
    waits: list[float] = []

    def pause(seconds: float) -> bool:
        waits.append(seconds)
        task.busy = 0
        return False

    App().delete_in(cloud_of(modal), context(pause), ID, LABEL)
    assert 1.0 in waits
    assert modal.deployed == []


def test_a_read_tells_what_became_of_it(modal: ModalEmulator) -> None:
    inputs = created(modal)
    cloud = cloud_of(modal)
    before = App().read_in(cloud, ID, None, None)
    assert before is not None
    same = App().read_in(cloud, ID, inputs, before.outputs)
    assert same is not None and same.inputs == inputs and same.outputs == before.outputs

    cloud.scale(ID, 0, 7, 60)
    scaled = App().read_in(cloud, ID, inputs, before.outputs)
    assert scaled is not None and scaled.inputs.max_containers == 7 and scaled.inputs.status == "deployed"

    modal.deployed[0].version = 2
    redeployed = App().read_in(cloud, ID, inputs, before.outputs)
    assert redeployed is not None and redeployed.inputs.status == "redeployed"

    modal.stop("shop-dev-server-1")
    assert App().read_in(cloud, ID, inputs, before.outputs) is None


def test_an_import_of_what_this_tool_deployed_replaces_nothing(modal: ModalEmulator) -> None:
    inputs = created(modal)
    found = App().read_in(cloud_of(modal), ID, None, None)
    assert found is not None
    new, state = inputs.model_dump(), found.outputs.model_dump()
    changed = frozenset({"image", "script"})
    assert App().satisfied(changed, new, state) == changed
    assert App().satisfied(changed, {**new, "gpus": ["L4"]}, state) == frozenset()
    assert App().satisfied(changed, {**new, "volume": UNKNOWN}, state) == frozenset()


def test_an_app_without_a_web_server_can_not_be_imported(modal: ModalEmulator) -> None:
    created(modal)
    modal.deployed[0].functions.clear()
    with pytest.raises(PlatformError, match="has no function `serve`"):
        App().read_in(cloud_of(modal), ID, None, None)


def test_nothing_is_there_before_it_is_created(modal: ModalEmulator) -> None:
    assert App().read_in(cloud_of(modal), ID, None, None) is None


@pytest.mark.parametrize("id", ["my-app", "main/my/app", "/my-app", "main/"])
def test_an_id_that_is_none_is_refused_with_an_example(modal: ModalEmulator, id: str) -> None:
    with pytest.raises(PlatformError, match="an id looks like main/my-app"):
        App().read_in(cloud_of(modal), id, None, None)


def test_what_modal_refuses_says_so_and_leaves_nothing(modal: ModalEmulator) -> None:
    with pytest.raises(PlatformError, match=r"Modal refused the deploy .*unknown GPU type NOTAGPU"):
        App().create_in(cloud_of(modal), context(), wanted(gpus=["NOTAGPU"]))
    assert modal.deployed == []


def test_an_image_that_can_not_be_built_says_why(modal: ModalEmulator) -> None:
    modal.workspace.image_error = "manifest unknown"
    with pytest.raises(PlatformError, match=r"could not build the image, so nothing was deployed.*manifest unknown"):
        App().create_in(cloud_of(modal), context(), wanted())
    assert modal.deployed == []


def test_a_volume_that_is_not_there_is_named(modal: ModalEmulator) -> None:
    with pytest.raises(PlatformError, match="Volume 'gone' not found"):
        App().create_in(cloud_of(modal), context(), wanted(volume="gone"))
    assert modal.deployed == []


def test_a_wrong_token_says_where_to_get_one(modal: ModalEmulator) -> None:
    with pytest.raises(AuthError, match=r"refuses the token.*modal token new"):
        Modal(("ak-wrong", "as-wrong"), lambda seconds: False).app(ID)


def test_no_token_says_where_to_get_one(modal: ModalEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODAL_TOKEN_ID")
    with pytest.raises(AuthError, match=r"there is no token for Modal.*MODAL_TOKEN_ID"):
        connect(lambda seconds: False)


def test_a_cancelled_deploy_ends_at_once(modal: ModalEmulator) -> None:
    modal.faults.add(Fault(method=RPC, path="FunctionCreate", kind=Kind.STALLED))
    cloud = Modal(TOKEN, lambda seconds: modal.hung > 0, lambda: 0.0)
    with pytest.raises(Interrupted, match=r"may be deployed all the same: `pulumi up` takes it over"):
        App().create_in(cloud, context(), wanted())
    assert modal.deployed == []


def test_an_update_whose_answer_is_lost_is_made_again(modal: ModalEmulator) -> None:
    old = created(modal)
    found = App().read_in(cloud_of(modal), ID, None, None)
    assert found is not None
    modal.faults.add(Fault(method=RPC, path="AppPublish", kind=Kind.TIMEOUT))
    new = old.model_copy(update={"concurrency": 8})
    updated = App().update_in(cloud_of(modal), context(), ID, found.outputs, old, new)
    assert updated.outputs.version == 2
    assert modal.deployed[0].functions["serve"].ranked[0].max_concurrent_inputs == 8


def test_an_update_of_what_was_stopped_says_what_to_do(modal: ModalEmulator) -> None:
    old = created(modal)
    found = App().read_in(cloud_of(modal), ID, None, None)
    assert found is not None
    modal.stop("shop-dev-server-1")
    with pytest.raises(PlatformError, match="was stopped, and nothing is billed for it; `pulumi refresh`"):
        App().update_in(cloud_of(modal), context(), ID, found.outputs, old, old.model_copy(update={"timeout_s": 60}))


def test_a_volume_is_made_once_and_deleted_for_certain(modal: ModalEmulator) -> None:
    cloud = cloud_of(modal)
    made = VolumeResource().create_in(cloud, CACHE)
    assert VolumeResource().create_in(cloud, CACHE) == made
    assert made.outputs.name == f"shop-dev-cache-1-{OWNER}"
    assert VolumeResource().read_in(cloud, made.id, CACHE) is not None
    modal.faults.add(Fault(method=RPC, path="VolumeDelete", kind=Kind.DROPPED))
    VolumeResource().delete_in(cloud, context(), made.id)
    VolumeResource().delete_in(cloud, context(), made.id)
    assert modal.workspace.volumes == {}
    assert VolumeResource().read_in(cloud, made.id, CACHE) is None


@pytest.mark.parametrize("theirs", ["shop-dev-cache-1", "shop-dev-cache-1-0badcafe"])
def test_a_volume_of_that_name_that_the_stack_did_not_make_outlives_it(modal: ModalEmulator, theirs: str) -> None:
    modal.workspace.volumes["main", theirs] = "vo-theirs"
    made = VolumeResource().create_in(cloud_of(modal), CACHE)
    VolumeResource().delete_in(cloud_of(modal), context(), made.id)
    assert list(modal.workspace.volumes) == [("main", theirs)]


def test_without_an_owner_a_volume_that_exists_is_not_taken(modal: ModalEmulator) -> None:
    modal.workspace.volumes["main", "shop-dev-cache-1"] = "vo-theirs"
    with pytest.raises(PlatformError, match=r"Modal refused the volume main/shop-dev-cache-1.*already exists"):
        VolumeResource().create_in(cloud_of(modal), CACHE.model_copy(update={"label": "shop/dev/cache/1"}))


@pytest.mark.parametrize("kind", [Kind.LOST, Kind.DROPPED, Kind.TIMEOUT])
def test_a_volume_whose_create_answer_is_lost_is_the_one_that_the_next_try_takes(
    modal: ModalEmulator, kind: Kind
) -> None:
    modal.faults.add(Fault(method=RPC, path="VolumeGetOrCreate", kind=kind, times=20))
    with pytest.raises(PlatformError, match=r"did not answer.*it is empty and costs nothing: `pulumi up` asks again"):
        VolumeResource().create_in(cloud_of(modal), CACHE)
    modal.faults.clear()
    made = VolumeResource().create_in(cloud_of(modal), CACHE)
    assert list(modal.workspace.volumes) == [("main", made.outputs.name)]


def test_two_stacks_of_the_same_name_have_an_app_each(modal: ModalEmulator) -> None:
    ours, theirs = (
        wanted(label=f"{LABEL}-{owner}", image=f"vllm/vllm-openai:{tag}")
        for owner, tag in ((OWNER, "v0.27.1"), ("0badcafe", "v0.27.0"))
    )
    made = [App().create_in(cloud_of(modal), context(), inputs).id for inputs in (ours, theirs)]
    App().delete_in(cloud_of(modal), context(), made[0], ours.label)
    assert [f"main/{app.name}" for app in modal.deployed] == [made[1]]


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"gpus": ["NOTAGPU"]}, "Modal rents no NOTAGPU; it has T4, L4, A10"),
        ({"gpus": ["A10"], "gpu_count": 8}, "at most 4 of A10"),
        ({"gpus": ["L4"], "min_containers": 2, "max_containers": 1}, "at most `maxContainers`"),
    ],
)
def test_inputs_that_modal_would_only_refuse_at_up_fail_in_preview(inputs: dict[str, Any], says: str) -> None:
    (failure,) = App().check(inputs)
    assert says in failure.reason
    assert App().check({"gpus": ["H100"], "gpu_count": 8, "min_containers": 0, "max_containers": 2}) == []


def test_long_labels_keep_different_names_and_tags() -> None:
    one, other = f"{'p' * 90}1/dev/server/1", f"{'p' * 90}2/dev/server/1"
    for end in ("", f"-{OWNER}"):
        assert len(name_of(one + end)) <= 64
        assert name_of(one + end).endswith(end)
        assert name_of(one + end) != name_of(other + end)
    assert tags_of(one, "r") != tags_of(other, "r")
    assert all(len(value) <= 63 for value in tags_of(one, "r").values())


def test_the_label_is_read_back_from_the_tags() -> None:
    assert label_in(tags_of(LABEL, "r")) == LABEL
    assert label_in({"vllm-anywhere-project": "shop"}) == ""


def test_the_revision_is_of_what_runs_and_of_nothing_else() -> None:
    same = wanted(api_key=SecretStr("other"), max_containers=9, concurrency=1, label="a/b/c/2", timeout_s=5)
    assert revision_of(same) == revision_of(wanted())
    assert revision_of(wanted(regions=["eu"])) != revision_of(wanted())


def test_the_container_ends_with_its_server() -> None:
    program = "import vllm_anywhere_start as s, time; s.serve(); time.sleep(60); print('still there')"
    folder = os.path.dirname(vllm_anywhere_start.__file__ or "")  # noqa: PTH120
    env = {**os.environ, "PYTHONPATH": folder, vllm_anywhere_start.SCRIPT: "echo started; exit 3"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.returncode) == ("started\n", 1)


class TestInvariants(Invariants):
    creating = ("AppGetOrCreate", "AppGetTags", "AppCreate", "FunctionCreate", "AppPublish", "FunctionGet$")
    deleting = ("FunctionGetCurrentStats", "AppGetOrCreate", "AppStop")

    @pytest.fixture(autouse=True)
    def _emulated(self, modal: ModalEmulator) -> None:
        self.modal = modal

    def cloud(self, faults: dict[str, str]) -> Any:
        self.modal.workspace.apps.clear()
        self.modal.faults.clear()
        cloud: Any = cloud_of(self.modal)
        cloud.fail = lambda faults: self.modal.faults.add(
            *(Fault(method=RPC, path=name, kind=Kind(kind)) for name, kind in faults.items())
        )
        cloud.fail(faults)
        return cloud

    def create(self, cloud: Modal, where: Any) -> str:
        return App().create_in(cloud, where, wanted()).id

    def delete(self, cloud: Modal, where: Any, id: str) -> None:
        App().delete_in(cloud, where, id, LABEL)

    def existing(self, cloud: Modal) -> list[str]:
        return [f"{app.environment}/{app.name}" for app in self.modal.deployed]

    def leave(self, cloud: Modal) -> str:
        App().create_in(cloud, context(), wanted())
        return ID
