"""Runs the gateway on a VM: `gateway_vm.py ENV PORT`, in LiteLLM's environment, beside what it starts.

ENV is the file with the secrets that `fetch.py` writes, and writes anew when one changes. Its line `ANYWHERE_GATEWAY`
is a JSON object: `config`, `rule`, `ca_pem` and `keys`. Another one there starts a new proxy on the same port; the keys
of clients are the guard's to look after.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import certifi
import holder  # pyright: ignore[reportMissingImports]

WANTED, TLS_CERT, TLS_KEY = "ANYWHERE_GATEWAY", "VLLM_ANYWHERE_TLS_CERT", "VLLM_ANYWHERE_TLS_KEY"
SOURCES = ("gateway_hooks.py", "gateway_serve.py", "guard.py")
LOOK_S = 0.2


def told(file: Path) -> dict[str, str]:
    """The lines `NAME=value` of the file."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def program(file: Path, serial: int) -> Any:
    """What a proxy is started from now."""
    here, known = Path(__file__).parent, told(file)
    own = file.parent / f"proxy-{serial}"
    want = json.loads(known[WANTED])
    sources = {name: (here / name).read_text(encoding="utf-8") for name in SOURCES}
    cas = Path(certifi.where()).read_text(encoding="utf-8") if want["ca_pem"] else ""
    env = holder.write_program(own, sources, want, want["keys"], cas)
    env["ANYWHERE_KEYS"] = str(file)
    for name, variable, secret in (
        ("tls.pem", "ANYWHERE_TLS_CERT", TLS_CERT),
        ("tls.key", "ANYWHERE_TLS_KEY", TLS_KEY),
    ):
        # The folder is for its owner alone.
        (own / name).write_text(known[secret].replace("\\n", "\n") + "\n")
        env[variable] = str(own / name)
    return holder.Program(own, sys.executable, env)


def say(serial: int, problem: str) -> None:
    """For the console: where the change has got to."""
    what = f"{problem}; the one before still answers, if there was one" if problem else "answers"
    print(f"vllm-anywhere: proxy {serial}: {what}", flush=True)


def main() -> None:
    file, port = Path(sys.argv[1]), int(sys.argv[2])
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((os.environ.get("VLLM_ANYWHERE_ADDRESS", ""), port))
    listening.listen(1024)

    def start(serial: int) -> Any:
        return holder.Proxy(program(file, serial), listening)

    held = holder.Holder(start, say, time.monotonic)
    now = told(file)[WANTED]
    while held.alive():
        time.sleep(LOOK_S)
        if (new := told(file)[WANTED]) != now:
            now = new
            held.change()
    raise SystemExit("vllm-anywhere: the gateway does not start")


if __name__ == "__main__":
    main()
