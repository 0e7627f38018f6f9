"""The real Pulumi CLI on a project of its own: temporary backend, temporary state, nothing of the user's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from background import Background

from serving.tls import context

ROOT = Path(__file__).resolve().parents[1]
SERVER = "urn:pulumi:test::vllm-anywhere::vllm-anywhere:index:Deployment$vllm-anywhere:local:Server::server"
DEPLOYMENT = "urn:pulumi:test::vllm-anywhere::vllm-anywhere:index:Deployment::deployment"


@dataclass
class Project:
    """One stack, `test`, of the real project in a folder of its own."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @classmethod
    def create(cls, folder: Path, pulumi: str) -> Project:
        for name in ("Pulumi.yaml", "infra", "providers", "serving", "ops", ".venv"):
            (folder / name).symlink_to(ROOT / name)
        (folder / "stacks").mkdir()
        (folder / "backend").mkdir()
        env = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PULUMI_", "VLLM_ANYWHERE_", "COVERAGE"))
        }
        env |= {
            "PATH": f"{Path(pulumi).parent}{os.pathsep}{os.environ['PATH']}",
            "PULUMI_BACKEND_URL": f"file://{folder / 'backend'}",
            "PULUMI_CONFIG_PASSPHRASE": "for tests only",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_HOME": str(folder / "home"),
            "VLLM_ANYWHERE_STATE": str(folder / "state"),
        }
        project = cls(folder, env)
        project.pulumi("stack", "init", "test")
        return project

    def pulumi(self, *args: str, ok: bool = True, **env: str) -> str:
        """Run one command; returns what it printed, both streams together."""
        done = subprocess.run(
            ["pulumi", *args, "--non-interactive", "--color", "never"],
            cwd=self.folder,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode == 0) is ok, f"pulumi {' '.join(args)} -> {done.returncode}\n{done.stdout}"
        return done.stdout

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        """Start one command in a process group of its own."""
        return subprocess.Popen(
            ["pulumi", *args, "--non-interactive", "--color", "never"],
            cwd=self.folder,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def up(self, ok: bool = True, **env: str) -> str:
        return self.pulumi("up", "--yes", "--skip-preview", "-s", "test", ok=ok, **env)

    def preview(self, *args: str, ok: bool = True, **env: str) -> str:
        return self.pulumi("preview", "-s", "test", *args, ok=ok, **env)

    def refresh(self) -> str:
        return self.pulumi("refresh", "--yes", "--skip-preview", "-s", "test")

    def destroy(self) -> str:
        return self.pulumi("destroy", "--yes", "--skip-preview", "-s", "test")

    def config(self, key: str, value: str, *flags: str) -> None:
        self.pulumi("config", "set", "-s", "test", "--path", f"vllm-anywhere:{key}", value, *flags)

    def outputs(self) -> dict[str, Any]:
        return json.loads(self.pulumi("stack", "output", "-s", "test", "--json", "--show-secrets"))

    def exported(self) -> str:
        """The state as text, as the file backend keeps it (secrets encrypted)."""
        return self.pulumi("stack", "export", "-s", "test")

    def resources(self, token: str) -> list[dict[str, Any]]:
        found = json.loads(self.exported())["deployment"].get("resources") or []
        return [resource for resource in found if resource["type"] == token]

    def servers(self) -> list[int]:
        """Process ids of live local servers of this project, found in the process table."""
        marker = str(self.folder / "state")
        pids: list[int] = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().decode().split("\0")
                zombie = (process / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
            except OSError:
                continue
            if "providers.local.server" in command and any(a.startswith(marker) for a in command) and not zombie:
                pids.append(int(process.name))
        return pids

    def close(self) -> None:
        for pid in self.servers():
            os.kill(pid, 9)
        shutil.rmtree(self.folder, ignore_errors=True)


def answers(outputs: dict[str, Any], key: str | None = None) -> bool:
    """Whether the endpoint completes a request with the key, for a client that has nothing but the outputs.

    Raises:
        httpx.HTTPError: nobody answers there, or not by the stack's own certificate authority.
    """
    answer = httpx.post(
        f"{outputs['endpoint']}/chat/completions",
        headers={"Authorization": f"Bearer {key or outputs['api_key']}"},
        json={"model": outputs["model"], "max_tokens": 4, "messages": [{"role": "user", "content": "Say hello."}]},
        # Without TLS there is nothing to verify, and loading the public CAs takes longer than the request.
        verify=context(outputs["ca_pem"]) if outputs["endpoint"].startswith("https:") else False,
        timeout=60,
        trust_env=False,
    )
    return answer.is_success and bool(answer.json()["choices"][0]["message"]["content"])


@dataclass
class Follower(Background):
    """A client that asks again and again; where its endpoint fails it asks the one that the outputs have by then.

    `served` has the endpoints that answered, `failed` each request that found nobody at either.
    """

    project: Project
    outputs: dict[str, Any]
    served: set[str] = field(default_factory=set[str])
    failed: list[str] = field(default_factory=list[str])

    def _run(self) -> None:
        # Without a pause it would keep a core from the very change that it is to notice.
        while not self._done.wait(0.05):
            for again in (False, True):
                try:
                    if answers(self.outputs):
                        self.served.add(self.outputs["endpoint"])
                        break
                except httpx.HTTPError as error:
                    if again:
                        self.failed.append(repr(error))
                self.outputs = self.project.outputs()
