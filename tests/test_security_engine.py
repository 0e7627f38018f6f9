"""Nobody gets in without the key, on any platform; and a key is changed while its clients go on asking.

Pulumi's engine is real, and so is what serves: the start script that each platform gets, in a real shell where the
platform is emulated by processes, behind the real guard. The clouds are emulated.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import doors
import httpx
import pytest
from background import Background
from emulators.lambda_cloud import LambdaEmulator
from emulators.modal import ModalEmulator
from emulators.runpod import RunPodEmulator
from emulators.vastai import Servers, VastEmulator, offer_row
from engine import DEPLOYMENT, Project

from serving.tls import context

pytestmark = [pytest.mark.engine, pytest.mark.allow_hosts(["127.0.0.0/8", "::1", "localhost"])]

_PATIENCE_S = 60.0
OPEN = {
    # llama.cpp answers a browser's question whether it may ask, which carries no key: no content, no inference.
    "local": {"GET /health", "GET /v1/health", *(line for line in doors.TRICKS if line.startswith("OPTIONS "))},
    # RunPod's own edge asks for the key before anything else, so that not even the health of a worker is public.
    "runpod-serverless": set[str](),
    "runpod-load-balancing": set[str](),
}
"""What is meant to answer without a key. Elsewhere it is /health: platforms and monitors ask for it, and it says
nothing but that the engine lives."""
OTHERS = {
    "runpod-serverless": ["POST /run", "POST /runsync", "GET /status/1", "POST /cancel/1", "POST /purge-queue"],
}


@dataclass
class Stack:
    """A stack that is configured for one form of a platform."""

    project: Project
    form: str

    @property
    def outputs(self) -> dict[str, Any]:
        """Those of the Deployment as the backend has them now; an `up` may be writing them. Secrets stay encrypted."""
        (file,) = self.project.folder.glob("backend/.pulumi/stacks/*/test.json")
        while True:
            try:
                state = json.loads(file.read_text())["checkpoint"]["latest"]
                return next(one["outputs"] for one in state["resources"] if one["urn"] == DEPLOYMENT)
            except (ValueError, FileNotFoundError, KeyError, StopIteration):
                time.sleep(0.01)

    @property
    def trust(self) -> ssl.SSLContext | None:
        pem = self.outputs.get("ca_pem")
        return context(pem) if pem else None

    def opened(self) -> set[str]:
        return set(doors.opened(self.outputs["endpoint"], self.trust, more=OTHERS.get(self.form, ())))


@pytest.fixture
def stack(request: pytest.FixtureRequest, project: Project, tmp_path: Path) -> Iterator[Stack]:
    form: str = request.param
    platform, _, mode = form.partition("-")
    with ExitStack() as opened:
        project.config("provider", platform)
        project.config("model.served_name", "qwen3-4b")
        project.config("ready.timeout_s", "90")
        if platform == "runpod":
            runpod = opened.enter_context(RunPodEmulator())
            project.env |= runpod.env()
            if mode:
                project.config("runpod.mode", mode)
                project.config("own_api_key", runpod.key, "--secret")
        elif platform == "modal":
            project.env |= opened.enter_context(ModalEmulator()).env()
        elif platform == "vastai":
            (tmp_path / "market").mkdir()
            rows = [offer_row(id, dph_base=0.3 + id / 100) for id in range(1, 4)]
            market = opened.enter_context(VastEmulator(rows, servers=Servers(tmp_path / "market")))
            project.env |= {"VAST_API_KEY": market.key, "VLLM_ANYWHERE_VASTAI_URL": market.url}
        elif platform == "lambda":
            project.env |= opened.enter_context(LambdaEmulator(tmp_path / "cloud")).env()
        elif platform == "gcp":
            _google(project, opened)
        yield Stack(project, form)


def _google(project: Project, opened: ExitStack) -> None:
    pytest.importorskip("pulumi_gcp", reason="the gcp extra is not installed")
    from tests.doubles.gcp.cloud import BIN, VARIABLE, Cloud
    from tests.doubles.gcp.rest import Rest

    cloud = Cloud(project.folder / "cloud", owned=True)
    opened.callback(cloud.close)
    project.env |= opened.enter_context(Rest(cloud)).environ
    project.env |= {VARIABLE: str(cloud.folder), "GOOGLE_PROJECT": "shop-1"}
    project.env["PATH"] = f"{BIN}:{project.env['PATH']}"


@dataclass
class Client(Background):
    """Asks with one key for as long as it is told to, at the endpoint that the stack has at the moment.

    What was under way while the endpoint moved is asked once more, of the new one. `refused` has each 401, `failed`
    each request that nobody answered.
    """

    stack: Stack
    key: str
    served: int = 0
    refused: int = 0
    failed: list[str] = field(default_factory=list)

    def _run(self) -> None:
        while not self._done.wait(0.25) and not self.failed:
            outputs = self.stack.outputs
            status = asked(outputs, self.key)
            moved = self.stack.outputs
            if status not in (200, 401) and moved["endpoint"] != outputs["endpoint"]:
                status = asked(moved, self.key)
            self.served += status == 200
            self.refused += status == 401
            if status not in (200, 401):
                self.failed.append(f"{outputs['endpoint']}: {status}")


def asked(outputs: dict[str, Any], key: str) -> int:
    """The status of a request for the models with that key; 0 when nobody answers."""
    try:
        answer = httpx.get(
            f"{outputs['endpoint']}/models",
            headers={"Authorization": f"Bearer {key}"},
            # Without TLS there is nothing to verify, and loading the public CAs takes longer than the request.
            verify=context(outputs["ca_pem"]) if "ca_pem" in outputs else False,
            timeout=30,
            trust_env=False,
        )
    except httpx.HTTPError:
        return 0
    return answer.status_code


SLOW = pytest.mark.slow
FORMS = [
    *("runpod", "vastai", "modal"),
    *(pytest.param(f"runpod-{mode}", marks=SLOW) for mode in ("serverless", "load-balancing")),
]
ROTATING = ["local", *(pytest.param(form, marks=SLOW) for form in ("gcp", "runpod", "vastai", "modal", "lambda"))]


@pytest.mark.parametrize("stack", FORMS, indirect=True)
def test_no_route_answers_without_the_key_but_health(stack: Stack) -> None:
    stack.project.up()
    assert stack.opened() == OPEN.get(stack.form, {"GET /health"})
    assert doors.smuggled(stack.outputs["endpoint"], stack.trust) == {}
    if stack.trust:
        assert b" 200 " not in doors.answers_plainly(stack.outputs["endpoint"])


@pytest.mark.parametrize("stack", ROTATING, indirect=True)
def test_a_key_is_rotated_while_its_clients_go_on_asking(stack: Stack) -> None:
    project = stack.project
    printed = [project.up()]
    first = project.outputs()["api_key"]
    assert stack.opened() == OPEN.get(stack.form, {"GET /health"})
    assert doors.smuggled(stack.outputs["endpoint"], stack.trust) == {}

    with Client(stack, first) as old:
        project.config("api_key.rotation", "2")
        printed.append(project.up())
        second = project.outputs()["api_key"]
        assert second != first
        with Client(stack, second) as new:
            wait_until(lambda: new.served >= 3 or bool(new.failed))
        wait_until(lambda: old.served >= 3 or bool(old.failed))
    assert (new.failed, new.refused) == ([], 0)
    assert (old.failed, old.refused) == ([], 0)

    project.config("api_key.keep_previous", "false")
    with Client(stack, second) as new:
        printed.append(project.up())
        wait_until(lambda: asked(stack.outputs, first) == 401)
    assert (new.failed, new.refused) == ([], 0)
    assert project.outputs()["api_key"] == second
    printed += [project.exported(), project.preview("--diff")]
    assert not [text for text in printed if first in text or second in text]


def wait_until(done: Any) -> None:
    begun = time.monotonic()
    while not done():
        assert time.monotonic() - begun < _PATIENCE_S
        time.sleep(0.05)
