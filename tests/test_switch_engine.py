"""One spec, and only `provider` changes: round all platforms in one stack, with a client that must see no outage.

Pulumi's engine is real, and so is every server that answers; the clouds are emulated.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from background import Background
from engine import DEPLOYMENT, Project

from serving.tls import context

pytest.importorskip("pulumi_gcp", reason="the gcp extra is not installed")

from clouds import Clouds, emulated

from tests.doubles.gcp.cloud import BIN

pytestmark = [pytest.mark.engine, pytest.mark.allow_hosts(["127.0.0.0/8", "::1", "localhost"])]

_PATIENCE_S = 60.0


@pytest.fixture
def clouds(project: Project, tmp_path: Path) -> Iterator[Clouds]:
    with emulated(tmp_path / "clouds") as clouds:
        project.env |= clouds.env
        project.env["PATH"] = f"{BIN}:{project.env['PATH']}"
        yield clouds
        assert clouds.violations() == []


@dataclass
class Client(Background):
    """Asks the endpoint that the deployment has at the moment, one request after the other.

    `outages` has each request that nobody served, `served` the platforms in the order in which they served.
    A request that was under way while the endpoint moved is asked once more, of the new one, at once.
    """

    project: Project
    key: str
    outages: list[str] = field(default_factory=list)
    served: list[str] = field(default_factory=list)

    def reaches(self, provider: str) -> None:
        """Wait until a request was served by that platform, after all that came before."""
        begun = time.monotonic()
        while not self.served or self.served[-1] != provider:
            assert not self.outages and time.monotonic() - begun < _PATIENCE_S, (provider, self.outages)
            time.sleep(0.05)

    def _run(self) -> None:
        while not self._done.wait(0.1) and not self.outages:
            outputs = exported(self.project)
            problem = asked(outputs, self.key)
            if problem and (moved := exported(self.project))["endpoint"] != outputs["endpoint"]:
                outputs = moved
                problem = asked(outputs, self.key)
            if problem:
                self.outages.append(f"{outputs['provider']} {outputs['endpoint']}: {problem}")
            elif self.served[-1:] != [outputs["provider"]]:
                self.served.append(outputs["provider"])


def exported(project: Project) -> dict[str, Any]:
    """The outputs of the stack's Deployment as the backend has them now; an `up` may be writing them.

    The engine writes them before it deletes what was replaced, and the copy that is the stack's only when all is done.
    """
    (file,) = project.folder.glob("backend/.pulumi/stacks/*/test.json")
    while True:
        try:
            state = json.loads(file.read_text())["checkpoint"]["latest"]
        except (ValueError, FileNotFoundError):
            time.sleep(0.01)
            continue
        return next(one["outputs"] for one in state["resources"] if one["urn"] == DEPLOYMENT)


def asked(outputs: dict[str, Any], key: str) -> str:
    """One completion; "" when it came, else why not."""
    try:
        answer = httpx.post(
            f"{outputs['endpoint']}/chat/completions",
            headers={"Authorization": f"Bearer {key}"},
            json={"model": outputs["model"], "max_tokens": 2, "messages": [{"role": "user", "content": "Hello."}]},
            verify=context(outputs["ca_pem"]) if "ca_pem" in outputs else True,
            timeout=60,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        return repr(error)
    return "" if answer.is_success and answer.json()["choices"] else f"HTTP {answer.status_code}: {answer.text[:200]}"


def test_only_the_provider_changes_round_all_platforms_and_no_request_fails(project: Project, clouds: Clouds) -> None:
    project.config("model.served_name", "qwen3-4b")
    project.config("ready.timeout_s", "90")
    tour = ["local", "runpod", "vastai", "lambda", "gcp", "local"]
    project.config("provider", tour[0])
    project.up()
    with Client(project, project.outputs()["api_key"]) as client:
        client.reaches(tour[0])
        for provider in tour[1:]:
            project.config("provider", provider)
            project.up()
            client.reaches(provider)
            assert clouds.rented() == {provider} - {"local"}
            assert len(project.servers()) == (provider == "local")
    assert client.outages == []
    assert client.served == tour
    project.destroy()
    assert clouds.rented() == set()
    assert project.servers() == []
