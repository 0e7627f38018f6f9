"""The server process of `local`: holds its lock, serves, and leaves when it is told to.

Started as `python -m providers.local.server <folder>`, detached, with its log on stdout. The folder holds

    want.json   what to serve (written by the client)         keys      the API keys, mode 0600
    lock        locked for as long as the server lives        run.json  port, pid and start (written here)

Until the one who started it writes a byte to its stdin, the end of stdin ends the server: a provider that is
killed in mid-create leaves nothing behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from providers.local.keys import FILE, read_keys
from serving.guard import API_KEY, GUARD_MODULE, KEYS_FILE, guard_source

_LOCK_WAIT_S = 5.0
"""Longest look at the lock by others (`client.is_running`), with a wide margin."""


def main() -> None:
    """Serve what the folder says until SIGTERM."""
    folder = Path(sys.argv[1])
    lock = _lock(folder)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: stop.set())
    threading.Thread(target=_die_with_the_starter, daemon=True).start()

    want: dict[str, Any] = json.loads((folder / "want.json").read_text())
    keys = read_keys(folder)
    port = want["port"] or _free_port(want["last_port"])
    match want["engine"]:
        case "vllm":
            alive = _serve_vllm(folder, want, keys[0], port, lock)
        case "litellm":
            from providers.gateway.process import serve

            alive = serve(folder, port, lock)
        case _:
            alive = _serve_llama(want, keys, port)
    _write_json(folder / "run.json", {"pid": os.getpid(), "port": port, "started_at": time.time()})
    while not stop.wait(0.2):
        if not alive():
            break
    # The group is this process and what it started; llama.cpp's threads have no orderly end from here, and
    # everything that lasts is on disk by now.
    os.killpg(0, signal.SIGTERM)
    os._exit(0 if stop.is_set() else 1)


def _serve_llama(want: dict[str, Any], keys: tuple[str, str], port: int) -> Any:
    import xllamacpp

    params: Any = xllamacpp.CommonParams()  # pyright: ignore[reportAttributeAccessIssue]
    params.model.path = want["model"]
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.api_keys = list(keys)
    params.model_alias = [want["served_name"], *want["aliases"]]
    params.n_parallel = want["parallel"]
    params.n_ctx = want["context_tokens"] * want["parallel"]
    # Its threads wait for one another in busy loops, so one without a core of its own holds up all of them: on two busy
    # cores, an answer took two threads 15 times the CPU time of one. One core is left to whatever else runs.
    params.cpuparams.n_threads = max(1, (os.cpu_count() or 1) - 1)
    params.endpoint_metrics = True
    if want["chat_template"]:
        params.chat_template = want["chat_template"]
        params.use_jinja = True
    params.ui = False
    # A model this small wanders at the usual temperature; requests may still ask for another.
    params.sampling.temp = 0.0
    server: Any = xllamacpp.Server(params)  # pyright: ignore[reportAttributeAccessIssue]
    return lambda: server is not None


def _serve_vllm(folder: Path, want: dict[str, Any], key: str, port: int, lock: int) -> Any:
    args = [*want["args"], "--host", "127.0.0.1", "--port", str(port), "--middleware", f"{GUARD_MODULE}.Guard"]
    # Other users of this machine reach loopback too, and vLLM's own check leaves routes open.
    (folder / f"{GUARD_MODULE}.py").write_text(guard_source())
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))
    guarded = {"PYTHONPATH": path, "VLLM_USE_RUST_FRONTEND": "0", API_KEY: key, KEYS_FILE: str(folder / FILE)}
    # The lock goes to the child too: it counts as running for as long as either of them lives.
    child = subprocess.Popen(
        ["vllm", "serve", *args],
        env={**os.environ, **guarded},
        stdin=subprocess.DEVNULL,
        pass_fds=[lock],
    )
    return lambda: child.poll() is None


def _lock(folder: Path) -> int:
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                sys.exit("another server of the same label is running")
            time.sleep(0.05)
        else:
            return lock


def _die_with_the_starter() -> None:
    if not os.read(0, 1):
        print("whoever started this server has gone before it was ready; leaving", flush=True)
        os.killpg(0, signal.SIGKILL)


def _free_port(preferred: int) -> int:
    """`preferred` (where the last run of this server listened) if it is free, else any free port."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    sys.exit("no free port on 127.0.0.1")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


if __name__ == "__main__":
    main()
