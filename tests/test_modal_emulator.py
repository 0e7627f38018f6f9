"""The emulated Modal's own rules: when containers come and go, and what the web in front of them answers."""

from __future__ import annotations

import httpx
import pytest
from emulators.modal import ModalEmulator
from modal_proto import api_pb2
from test_lifecycle_invariants import context
from test_modal_apps import ID, KEY, cloud_of, created, modal, models, wanted  # noqa: F401 - `modal` is a fixture

from providers.modal.apps import App

pytestmark = pytest.mark.heavy


def address(modal: ModalEmulator) -> str:  # noqa: F811
    return f"{modal.url}/web/{ID}/serve/v1"


def test_a_container_comes_with_a_request_and_goes_after_its_window(modal: ModalEmulator) -> None:  # noqa: F811
    created(modal, scaledown_window_s=30)
    assert modal.deployed[0].tasks == []
    assert models(address(modal)).is_success
    assert len(modal.deployed[0].tasks) == 1
    modal.world.advance(29)
    assert len(modal.deployed[0].tasks) == 1
    modal.world.advance(2)
    assert modal.deployed[0].tasks == []


def test_minimum_containers_run_unasked_and_stay(modal: ModalEmulator) -> None:  # noqa: F811
    created(modal, min_containers=2, max_containers=2, scaledown_window_s=30)
    modal.world.advance(3600)
    assert len(modal.deployed[0].tasks) == 2


def test_the_first_gpu_that_there_is_gets_the_request(modal: ModalEmulator) -> None:  # noqa: F811
    modal.workspace.without |= {"L4", "A10"}
    created(modal, gpus=["L4", "A10"])
    assert models(address(modal)).status_code == 303
    modal.workspace.without.discard("A10")
    assert models(address(modal)).is_success
    assert modal.deployed[0].tasks[0].definition.resources.gpu_config.gpu_type == "A10"


def test_a_container_whose_server_has_ended_is_followed_by_another(modal: ModalEmulator) -> None:  # noqa: F811
    created(modal)
    assert models(address(modal)).is_success
    (first,) = modal.deployed[0].tasks
    engine = modal.world.engines.get(first.run)
    assert engine is not None and engine.process is not None
    engine.process._process.kill()  # pyright: ignore[reportPrivateUsage]
    engine.process._process.wait()  # pyright: ignore[reportPrivateUsage]
    assert models(address(modal)).is_success
    assert modal.deployed[0].tasks != [first]


def test_a_request_that_nothing_answers_is_redirected_after_its_limit(modal: ModalEmulator) -> None:  # noqa: F811
    modal.boot(broken=True)
    created(modal)
    before = modal.world.now()
    answer = models(address(modal))
    assert (answer.status_code, modal.world.now() - before >= 150) == (303, True)
    assert "__modal_function_call_id" in answer.headers["location"]


def test_a_stopped_app_has_no_address_any_more(modal: ModalEmulator) -> None:  # noqa: F811
    created(modal)
    modal.stop("shop-dev-server-1")
    assert models(address(modal)).status_code == 404


def test_proxy_authorization_would_lock_out_who_has_only_a_bearer_key(modal: ModalEmulator) -> None:  # noqa: F811
    created(modal)
    modal.deployed[0].functions["serve"].ranked[0].webhook_config.requires_proxy_auth = True
    assert models(address(modal), KEY).status_code == 401


def test_until_the_new_version_answers_the_old_one_does(modal: ModalEmulator) -> None:  # noqa: F811
    old = created(modal)
    assert models(address(modal)).is_success
    found = App().read_in(cloud_of(modal), ID, None, None)
    assert found is not None
    modal.boot(broken=True)
    new = old.model_copy(update={"concurrency": 4})
    App().update_in(cloud_of(modal), context(), ID, found.outputs, old, new)
    assert models(address(modal)).is_success
    assert {task.version for task in modal.deployed[0].tasks} == {1}


def test_a_deploy_that_was_never_published_is_no_app(modal: ModalEmulator) -> None:  # noqa: F811
    modal.workspace.image_error = "no such image"
    with pytest.raises(Exception, match="no such image"):
        App().create_in(cloud_of(modal), context(), wanted())
    (left,) = modal.workspace.apps.values()
    assert left.state == api_pb2.APP_STATE_STOPPED
    assert httpx.get(address(modal), timeout=10, trust_env=False).status_code == 404
