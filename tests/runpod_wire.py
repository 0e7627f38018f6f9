"""The emulated RunPod for tests: requests that it takes, and what tests do with it again and again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.emulators.runpod import RunPodEmulator

ARGS = "--model Qwen/Qwen3-4B --served-model-name qwen3-4b --host 0.0.0.0 --port 8000 --max-model-len 2048"
POD: dict[str, Any] = {
    "name": "shop/dev/server/1",
    "image": "vllm/vllm-openai:v0.22.1",
    "args": ARGS,
    "disk": 50,
    "env": {"VLLM_API_KEY": "sk-pod"},
    "ports": ["8000/http"],
    "gpu": {"id": "NVIDIA RTX A4000", "count": 1, "minCudaVersion": "13.0"},
    "dataCenterIds": ["EU-RO-1"],
}
QUEUE: dict[str, Any] = {
    "name": "shop/dev/endpoint/1",
    "type": "QUEUE",
    "image": "runpod/worker-v1-vllm:v2.25.2",
    "disk": 50,
    "env": {
        "MODEL_NAME": "Qwen/Qwen3-4B",
        "OPENAI_SERVED_MODEL_NAME_OVERRIDE": "qwen3-4b",
        "HF_TOKEN": "{{ RUNPOD_SECRET_hf }}",
    },
    "gpu": {"pools": ["AMPERE_16", "AMPERE_24"], "minCudaVersion": "13.0"},
    "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
}
BALANCED: dict[str, Any] = {
    "name": "shop/dev/balanced/1",
    "type": "LOAD_BALANCER",
    "image": "vllm/vllm-openai:v0.22.1",
    "args": ARGS,
    "disk": 50,
    "env": {"PORT": "8000", "PORT_HEALTH": "8000", "HEALTH_CHECK_PATH": "/health"},
    "ports": ["8000/http"],
    "gpu": {"pools": ["AMPERE_16"]},
    "scaling": {"type": "REQUEST_COUNT", "requestCount": 2},
    "workers": {"min": 0, "max": 1, "idleTimeout": 30},
}
QUESTION = {"model": "qwen3-4b", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}


@contextmanager
def emulated() -> Generator[RunPodEmulator]:
    """An emulator that in the end must have kept to the contract in all its answers."""
    with RunPodEmulator() as emulator:
        yield emulator
    assert [text for text in emulator.violations if not text.startswith("request ")] == []


@contextmanager
def client_of(emulator: RunPodEmulator) -> Generator[httpx.Client]:
    """A client with the account's key."""
    headers = {"Authorization": f"Bearer {emulator.key}"}
    with httpx.Client(base_url=emulator.url, headers=headers, timeout=60, trust_env=False) as client:
        yield client


def needs_the_contract(emulator: RunPodEmulator) -> None:
    if not emulator.judged:
        pytest.skip("the vendor's contract is not beside this checkout")


def created(api: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = api.post(path, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def until(found: Callable[[], Any], limit_s: float = 60) -> Any:
    """Waits for a real server, so in real time."""
    begun = time.monotonic()
    while not (value := found()):
        assert time.monotonic() - begun < limit_s
        time.sleep(0.02)
    return value


def listed(api: httpx.Client, path: str, name: str) -> list[str]:
    """The ids of a list, over all its pages."""
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page = api.get(path, params={"cursor": cursor} if cursor else {}).json()
        ids += [row["id"] for row in page[name]]
        cursor = page["pagination"]["nextCursor"]
        assert (cursor is not None) is page["pagination"]["hasNextPage"]
        if cursor is None:
            return ids


def log(api: httpx.Client, path: str, lines: int) -> list[str]:
    """The first lines of a log stream, which has no end."""
    found: list[str] = []
    with api.stream("GET", path, params={"tail": lines}) as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        for line in stream.iter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: "))["line"])
            if len(found) == lines:
                return found
    return found
