"""The machine's own "control plane": starts, finds and stops server processes by label.

A label is a folder below the state folder; a server runs exactly when its `lock` is held (see `server.py`), which
no crash and no reuse of a process id can fake.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from providers.base import PlatformError
from providers.local import keys

ROOT = Path(__file__).resolve().parents[2]

Pause = Callable[[float], object]


def state_folder() -> Path:
    """Where servers keep their records: `.state/local` of the checkout, or `$VLLM_ANYWHERE_STATE/local`."""
    return Path(os.environ.get("VLLM_ANYWHERE_STATE") or ROOT / ".state") / "local"


@dataclass(frozen=True)
class Running:
    """A live server: its process group, port on 127.0.0.1, and start in seconds since the epoch."""

    pid: int
    port: int
    started_at: float


class Starting:
    """A server that was started and is not committed yet: it ends with this process, or when this is dropped."""

    def __init__(self, process: subprocess.Popen[bytes], leash: int) -> None:
        self._process = process
        self._leash = leash

    @property
    def exited(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    def commit(self) -> None:
        """Let it outlive this process."""
        os.write(self._leash, b"+")
        os.close(self._leash)

    def drop(self) -> None:
        """End it, and return once the process has ended; what it started itself may take a moment longer."""
        os.close(self._leash)
        self._process.wait()


class LocalMachine:
    """Servers on this machine. `transport` is the seam for tests of what it asks a server."""

    def __init__(self, folder: Path | None = None, transport: httpx.BaseTransport | None = None) -> None:
        self._folder = folder or state_folder()
        self._http = httpx.Client(transport=transport, timeout=5.0, trust_env=False)

    def folder(self, label: str) -> Path:
        """The folder of a label."""
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+){3}", label) or {".", ".."} & set(label.split("/")):
            raise PlatformError(f"{label} is no server's id; one looks like vllm-anywhere/local/server/1")
        return self._folder / label

    def labels(self) -> list[str]:
        """Every label with a record, running or not."""
        return sorted(str(want.parent.relative_to(self._folder)) for want in self._folder.glob("*/*/*/*/want.json"))

    def start(self, label: str, want: Mapping[str, Any], key: str, previous_key: str = "") -> Starting:
        """Start a server for `want`. What an earlier run of the label wrote is overwritten, its log excepted."""
        folder = self.folder(label)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        last = self.last_run(label)
        (folder / "run.json").unlink(missing_ok=True)
        write_private(folder / "want.json", json.dumps({**want, "last_port": last.port if last else 0}))
        self.write_keys(label, key, previous_key)
        held, leash = os.pipe()
        try:
            with (folder / "server.log").open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "providers.local.server", str(folder)],
                    cwd=ROOT,
                    # The engine hands the stack's config to its plugins in the environment, secrets in clear.
                    env={name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")},
                    stdin=held,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        finally:
            os.close(held)
        return Starting(process, leash)

    def write_keys(self, label: str, key: str, previous_key: str = "") -> None:
        """Keep the keys that the label's server takes; vLLM's guard takes new ones from there while it serves."""
        write_private(self.folder(label) / keys.FILE, keys.keys_text(key, previous_key))

    def want(self, label: str) -> dict[str, Any] | None:
        """What the label was started for, with `api_key` and `previous_key`; None when there is no such label."""
        folder = self.folder(label)
        try:
            want = json.loads((folder / "want.json").read_text())
            del want["last_port"]
            key, previous = keys.read_keys(folder)
            return {**want, "api_key": key, "previous_key": previous}
        except FileNotFoundError:
            return None

    def running(self, label: str) -> Running | None:
        """The live server of a label; None when none runs, or it doesn't listen yet."""
        return self.last_run(label) if self.is_running(label) else None

    def last_run(self, label: str) -> Running | None:
        """The label's last server that listened, whether it still runs or not."""
        try:
            return Running(**json.loads((self.folder(label) / "run.json").read_text()))
        except FileNotFoundError:
            return None

    def is_running(self, label: str) -> bool:
        """Whether a process holds the label's lock."""
        try:
            lock = os.open(self.folder(label) / "lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def healthy(self, port: int) -> bool:
        """Whether the server says that its engine is alive."""
        try:
            return self._http.get(f"http://127.0.0.1:{port}/health").is_success
        except httpx.HTTPError:
            return False

    def activity(self, port: int, key: str) -> tuple[int, int] | None:
        """Requests in flight and tokens served so far; None when the server can't say."""
        try:
            answer = self._http.get(
                f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {key}"}
            ).raise_for_status()
        except httpx.HTTPError:
            return None
        return parse_activity(answer.text)

    def stop(self, label: str, pause: Pause, patience_s: float = 10.0) -> None:
        """End the label's server, and return once it is gone; SIGKILL after `patience_s`."""
        for sent in (signal.SIGTERM, signal.SIGKILL):
            running = self.running(label)
            if running is not None:
                try:
                    os.killpg(running.pid, sent)
                except ProcessLookupError:
                    return
            for _ in range(int(patience_s / 0.05)):
                if not self.is_running(label):
                    return
                pause(0.05)
        raise PlatformError(f"the server of {label} does not end; its folder is {self.folder(label)}")

    def forget(self, label: str) -> None:
        """Remove the label's record, its key and its log."""
        folder = self.folder(label)
        shutil.rmtree(folder, ignore_errors=True)
        for parent in list(folder.parents)[:3]:
            try:
                parent.rmdir()
            except OSError:
                return

    def give_up(self, label: str, pause: Pause = time.sleep, patience_s: float = 1.0) -> None:
        """Remove what a failed create leaves, which state has no id of. What goes on running keeps its record."""
        for _ in range(int(patience_s / 0.05)):
            if not self.is_running(label):
                self.forget(label)
                return
            pause(0.05)

    def log_tail(self, label: str, lines: int) -> list[str]:
        """The last lines that the server wrote."""
        try:
            text = (self.folder(label) / "server.log").read_text(errors="replace")
        except FileNotFoundError:
            return []
        return text.splitlines()[-lines:]


def log_tail(server_id: str, lines: int) -> list[str]:
    """The last lines of a server's log, by its Pulumi id."""
    return LocalMachine().log_tail(server_id, lines)


_IN_FLIGHT = re.compile(
    r"^(?:llamacpp:requests_processing|llamacpp:requests_deferred|vllm:num_requests_(?:running|waiting))"
    r"(?:\{[^}]*\})? ([\d.e+]+)",
    re.MULTILINE,
)
_TOKENS = re.compile(
    r"^(?:llamacpp:(?:prompt_tokens|tokens_predicted)_total|vllm:(?:prompt|generation)_tokens_total)"
    r"(?:\{[^}]*\})? ([\d.e+]+)",
    re.MULTILINE,
)


def parse_activity(metrics: str) -> tuple[int, int]:
    """Requests in flight and tokens so far, from llama.cpp's or vLLM's Prometheus text."""
    return (
        sum(int(float(value)) for value in _IN_FLIGHT.findall(metrics)),
        sum(int(float(value)) for value in _TOKENS.findall(metrics)),
    )


def write_private(path: Path, text: str) -> None:
    """Write so that nobody else can read it and no reader sees half of it."""
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)
