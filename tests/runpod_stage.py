"""A stack on the emulated RunPod, for tests that drive the real Pulumi CLI; and a client that must see no failure.

Settings are written into the stack's file and what was deployed is read from the backend's: each command that is not
what a test is about would cost it a second.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

import httpx
import yaml
from background import Background
from emulators.runpod import RunPodEmulator
from engine import DEPLOYMENT, Project

TOKENS = {"pod": "Pod", "serverless": "Endpoint", "load-balancing": "Endpoint"}
_PATIENCE_S = 30.0
_QUESTION = [{"role": "user", "content": "Say hello."}]


@dataclass
class Stage:
    """A stack in one of RunPod's modes."""

    project: Project
    runpod: RunPodEmulator
    mode: str

    @property
    def token(self) -> str:
        return f"vllm-anywhere:runpod:{TOKENS[self.mode]}"

    def set(self, **settings: Any) -> None:
        """Settings of the stack; `__` leads into a section, and None takes one away."""
        file = self.project.folder / "stacks/Pulumi.test.yaml"
        told = yaml.safe_load(file.read_text()) if file.exists() else None
        config: dict[str, Any] = (told or {}).get("config", {})
        for name, value in settings.items():
            section, _, key = name.partition("__")
            section = f"vllm-anywhere:{section}"
            if key:
                config[section] = {**config.get(section, {}), key: value}
            else:
                config[section] = value
            if config[section] is None:
                del config[section]
        file.write_text(yaml.safe_dump({**(told or {}), "config": config}))

    def resources(self) -> list[dict[str, Any]]:
        """What state holds, without what waits to be deleted."""
        (file,) = self.project.folder.glob("backend/.pulumi/stacks/*/test.json")
        found = json.loads(file.read_text())["checkpoint"]["latest"]
        return [one for one in (found or {}).get("resources") or [] if not one.get("delete")]

    def server(self) -> dict[str, Any]:
        (found,) = [one for one in self.resources() if one["type"] == self.token]
        return found

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs; secret ones stay encrypted."""
        return next(one.get("outputs", {}) for one in self.resources() if one["type"] == "pulumi:pulumi:Stack")

    def key(self) -> str:
        return self.project.outputs()["api_key"]

    def owned(self) -> set[str]:
        """Ids of what state owns on RunPod."""
        mine = [one for one in self.resources() if ":runpod:" in one["type"]]
        return {one["id"] for one in mine if not one["type"].endswith(":Weights")} - {"in-clear"}

    def existing(self) -> set[str]:
        """Ids of what exists there."""
        state = self.runpod.state()
        shelves = ("pods", "endpoints", "volumes", "registries", "secrets")
        return {row["id"] for shelf in shelves for row in state[shelf]}

    def answers(self, key: str) -> bool:
        return completes(self.outputs(), key)

    def up(self, *flags: str, ok: bool = True, **env: str) -> str:
        return self.project.pulumi("up", "--yes", "--skip-preview", "-s", "test", *flags, ok=ok, **env)

    def imported(self) -> None:
        """Forget the server, and take it back by its id."""
        server = self.server()
        self.project.pulumi("state", "delete", server["urn"], "--target-dependents", "--yes", "-s", "test")
        self.project.pulumi(
            *("import", self.token, "server", server["id"], "--parent", f"deployment={DEPLOYMENT}"),
            *("--protect=false", "--generate-code=false", "--yes", "-s", "test"),
        )


@contextmanager
def staged(project: Project, mode: str) -> Iterator[Stage]:
    """A stack that is configured and not up yet, on an account of its own whose answers keep to the contract."""
    with RunPodEmulator() as runpod:
        project.env |= runpod.env()
        stage = Stage(project, runpod, mode)
        stage.set(
            provider="runpod",
            model={"name": "Qwen/Qwen3-4B-Instruct-2507", "served_name": "qwen3-4b"},
            hardware={"gpus": ["RTX 4000 Ada"]},
            runpod={"mode": mode},
        )
        if mode != "pod":
            stage.set(own_api_key=runpod.key, scaling={"min": 0, "max": 2})
        yield stage
        assert runpod.violations == []


def completes(outputs: dict[str, Any], key: str) -> bool:
    """Whether the endpoint completes a request; raises `httpx.HTTPError` where nothing answers."""
    answer = httpx.post(
        f"{outputs['endpoint']}/chat/completions",
        headers={"Authorization": f"Bearer {key}"},
        json={"model": outputs["model"], "max_tokens": 2, "messages": _QUESTION},
        timeout=60,
        trust_env=False,
    )
    return answer.is_success and bool(answer.json()["choices"])


@dataclass
class Client(Background):
    """Asks for completions, one after the other. When its endpoint fails it goes on at the one that the stack has next.

    `failed` holds what no such move explains: nothing else had answered by then, or the next one does not answer.
    """

    stage: Stage
    key: str
    failed: list[str] = field(default_factory=list)
    served: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._outputs = self.stage.outputs()
        return super().__enter__()

    def moved(self) -> None:
        """Wait until it is served by the endpoint that the stack has now."""
        begun = time.monotonic()
        while self.stage.outputs()["endpoint"] not in self.served:
            assert not self.failed and time.monotonic() - begun < _PATIENCE_S, self.failed
            time.sleep(0.05)

    def _run(self) -> None:
        while not self._done.wait(0.1) and not self.failed:
            if problem := self._ask():
                self._move(problem, datetime.now(UTC))

    def _move(self, problem: str, at: datetime) -> None:
        before, begun = self._outputs["endpoint"], time.monotonic()
        while self._outputs["endpoint"] == before:
            if time.monotonic() - begun > _PATIENCE_S:
                self.failed.append(f"{before}: {problem}, and there is no other")
                return
            time.sleep(0.05)
            self._outputs = self.stage.outputs()
        answered = self._outputs["ready"]["answered_at"]
        if datetime.fromisoformat(answered) > at:
            self.failed.append(f"{before}: {problem} at {at}, and the next one answered at {answered} only")
        elif again := self._ask():
            self.failed.append(f"{self._outputs['endpoint']}: {again}")

    def _ask(self) -> str:
        try:
            if completes(self._outputs, self.key):
                if self._outputs["endpoint"] not in self.served:
                    self.served.append(self._outputs["endpoint"])
                return ""
        except httpx.HTTPError as error:
            return repr(error)
        return "an answer that is none"
