"""A peer of `benchmarks/offers.py` as seen from here: its environment, and its process (`offer_peers.py`)."""

from __future__ import annotations

import json
import os
import subprocess
import venv
from dataclasses import asdict
from pathlib import Path

from support import ROOT
from support.offer_rows import Needs

PEERS = ("gpuhunt", "gpuhunt, GPUs by name", "SkyPilot")
PINNED = ("gpuhunt==0.1.34", "skypilot==0.14.1")
VENV = ROOT / "build" / "peers"
INSTALLED = VENV / "installed"
"""What is installed there; missing until all of it is."""


class Peer:
    """A peer with the rows in memory, in a process of its own that sleeps between questions.

    Raises:
        RuntimeError: the process ended, with the last it said.
    """

    def __init__(self, name: str, python: Path, rows: Path, wanted: Needs, home: Path) -> None:
        worker = Path(__file__).with_name("offer_peers.py")
        self._log = home / f"{name}.log"
        self._process = subprocess.Popen(
            [python, worker, name, rows, json.dumps(asdict(wanted))],
            env={**os.environ, "HOME": str(home), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
        )
        self._read()

    def ask(self) -> None:
        """One answer, left where it is."""
        self._answer("ask")

    def names(self) -> list[str]:
        """The names in one answer, cheapest first."""
        return json.loads(self._answer("names"))

    def close(self) -> None:
        """End the process."""
        with self._process:
            pass

    def _answer(self, question: str) -> str:
        assert self._process.stdin
        print(question, file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a peer ended with {self._process.wait()}:\n{self._log.read_text()[-2000:]}")
        return line


def peers_python() -> Path:
    """The Python that has the peers; the first call makes it."""
    python = VENV / "bin" / "python"
    if not INSTALLED.exists() or INSTALLED.read_text().split() != list(PINNED):
        print(f"installing {' and '.join(PINNED)} in {VENV.relative_to(ROOT)}", flush=True)
        venv.create(VENV, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PINNED], check=True)
        INSTALLED.write_text("\n".join(PINNED))
    return python
