"""A gateway on a VM of Google Cloud under the real Pulumi CLI and the real `pulumi_gcp`, on the double of its plugin.

LiteLLM is real, what is behind it is a stub, and Google is emulated.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from engine import Project
from gateway_stage import WORDS, Stub, command, described, stub_stack

from providers.gateway.client import missing
from serving.tls import context

pytest.importorskip("pulumi_gcp", reason="the gcp extra is not installed")

from google_stage import google

from tests.doubles.gcp.cloud import Cloud

pytestmark = [
    pytest.mark.engine,
    pytest.mark.allow_hosts(["127.0.0.0/8", "::1", "localhost"]),
    pytest.mark.skipif(bool(missing()), reason="LiteLLM is not installed"),
]
INSTANCE = "gcp:compute/instance:Instance"
UPSTREAM_KEY = "sk-upstream-6f1c9e"


@pytest.fixture
def cloud(project: Project) -> Iterator[Cloud]:
    with google(project) as cloud:
        yield cloud


@pytest.fixture
def servers() -> Iterator[list[Stub]]:
    stubs = [Stub("qwen3-4b", key=UPSTREAM_KEY), Stub("qwen3-4b", key=UPSTREAM_KEY)]
    for stub in stubs:
        stub.start()
    yield stubs
    for stub in stubs:
        stub.kill()


def asked(outputs: dict[str, object], key: object = None, **body: object) -> httpx.Response:
    return httpx.post(
        f"{outputs['endpoint']}/chat/completions",
        headers={"Authorization": f"Bearer {key or outputs['api_key']}"},
        json={"model": outputs["model"], "messages": [{"role": "user", "content": "Count."}], **body},
        verify=context(str(outputs["ca_pem"])),
        timeout=30,
        trust_env=False,
    )


def until(true: Callable[[], bool], within_s: float = 60) -> None:
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < within_s
        time.sleep(0.1)


def behind(project: Project, server: Stub) -> None:
    secret = described(server, "0.2000")
    secret["api_key"]["plaintext"] = json.dumps(UPSTREAM_KEY)
    stub_stack(project, "cheap", secret)


def test_a_gateway_on_a_vm_serves_over_tls_changes_in_place_and_leaves_nothing(
    project: Project, cloud: Cloud, servers: list[Stub]
) -> None:
    behind(project, servers[0])
    project.config("gateway.stacks[0]", "cheap")
    project.config("gateway.on", "gcp")
    project.config("ready.timeout_s", "90")
    shown = " ".join(project.preview().split())
    assert "e2-small in europe-west4-a with 10 GB of disk and a static address, $" in shown
    assert cloud.all() == []

    project.up()
    first = project.outputs()
    assert first["endpoint"].startswith("https://")
    assert asked(first).json()["choices"][0]["message"]["content"] == "".join(WORDS)
    assert asked(first, key="wrong").status_code == 401
    assert "one two three" in command(project, "chat", "-s", "test", "Count.")
    (vm,) = project.resources(INSTANCE)
    assert float(first["cost"]["monthly_usd"]) > 10
    told = (project.exported(), json.dumps(vm["outputs"]), (cloud.folder / "requests.jsonl").read_text())
    assert not [text for text in told if UPSTREAM_KEY in text or first["api_key"] in text]
    (serial,) = (cloud.folder / "vms").glob("*/serial.log")
    assert UPSTREAM_KEY not in serial.read_text() and first["api_key"] not in serial.read_text()
    assert "unchanged" in project.up() and "created" not in project.preview()

    # What is behind it moves: a new version of a secret, the same VM, and the proxy is changed under the port.
    behind(project, servers[1])
    project.config("api_key.rotation", "2")
    project.up()
    second = project.outputs()
    assert second["api_key"] != first["api_key"] and second["endpoint"] == first["endpoint"]
    assert project.resources(INSTANCE)[0]["outputs"]["instanceId"] == vm["outputs"]["instanceId"]
    until(lambda: asked(second).is_success and bool(servers[1].asked))
    assert asked(second, key=first["api_key"]).is_success

    project.destroy()
    assert cloud.all() == []
    with pytest.raises(httpx.TransportError):
        asked(second)
