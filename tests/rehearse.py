"""A shell in which every cloud is emulated: nothing is rented, no account is used, and all of it ends with the shell.

    PYTHONPATH=. python tests/rehearse.py [COMMAND ...]

It works on a copy of the checkout, so stack files and state of the real one stay as they are.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from clouds import Clouds, emulated
from docs_runner import Checkout

from tests.doubles.gcp.cloud import BIN

PROPOSED = """
    pulumi stack select --create runpod && pulumi up -s runpod
    pulumi config set vllm-anywhere:provider vastai -s runpod && pulumi up -s runpod
    pulumi destroy -s runpod
"""
_ABOUT = f"""Emulated until this shell ends: runpod, vastai, modal, gcp, lambda. Nothing is rented, no account is used.
You are in a copy of the checkout. For example:
{PROPOSED}"""
_OWN = ("PULUMI_", "VLLM_ANYWHERE_")


def main(command: list[str]) -> int:
    """Run the command, or an interactive shell. Returns its exit status."""
    for ending in (signal.SIGHUP, signal.SIGTERM):
        # A terminal that is closed must leave no emulated server behind.
        signal.signal(ending, lambda number, _frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="vllm-anywhere-") as folder:
        at = Path(folder)
        with emulated(at / "clouds") as clouds:
            checkout = Checkout.create(at, os.environ["PATH"], {})
            try:
                return _run(checkout, clouds, command)
            finally:
                _tell(clouds)
                checkout.close()


def _run(checkout: Checkout, clouds: Clouds, command: list[str]) -> int:
    """The shell ends by itself on Ctrl-C, if at all."""
    start = checkout.folder.parent / "start.sh"
    start.write_text(
        f"[ -t 0 ] && [ -r ~/.bashrc ] && . ~/.bashrc\n. tools/env.sh\nexport PATH={shlex.quote(str(BIN))}:$PATH\n"
        f"PS1='(rehearsal) \\W \\$ '\n"
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if command:
            script = f". {shlex.quote(str(start))} && {shlex.join(command)}"
            return subprocess.run(["bash", "-c", script], cwd=checkout.folder, env=_env(checkout, clouds)).returncode
        print(_ABOUT, flush=True)
        shell = ["bash", "--rcfile", str(start), "-i"]
        return subprocess.run(shell, cwd=checkout.folder, env=_env(checkout, clouds)).returncode
    finally:
        signal.signal(signal.SIGINT, before)


def _env(checkout: Checkout, clouds: Clouds) -> dict[str, str]:
    """What the user has, but for keys, backends and addresses: those are the rehearsal's."""
    backend = checkout.folder / ".state" / "backend"
    backend.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
    return {
        **kept,
        **clouds.env,
        "PYTHONPATH": str(checkout.folder),
        "PULUMI_BACKEND_URL": f"file://{backend}",
        "PULUMI_CONFIG_PASSPHRASE": "rehearsal",
        "VLLM_ANYWHERE_STATE": str(checkout.folder / ".state"),
    }


def _tell(clouds: Clouds) -> None:
    """What a real cloud would go on billing, or would have refused."""
    if left := clouds.rented():
        print(f"Still rented when the rehearsal ended, and billed if it had been real: {', '.join(sorted(left))}.")
    for text in clouds.violations():
        print(f"A real platform would have refused: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
