"""`make rehearse`: the clouds without an account, in a copy of the checkout, and nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from engine import ROOT

pytest.importorskip("pulumi_gcp", reason="the gcp extra is not installed")
pytestmark = [pytest.mark.engine, pytest.mark.allow_hosts(["127.0.0.0/8", "::1", "localhost"])]


def rehearse(at: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tests/rehearse.py", *(["bash", "-ec", script] if script else [])],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(at), "PULUMI_BACKEND_URL": "file:///nowhere"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_shell_without_an_account_reaches_emulated_clouds_and_nothing_of_the_users(tmp_path: Path) -> None:
    told = rehearse(tmp_path, "pulumi stack ls --json; vllm-anywhere doctor vastai; exit 7")
    assert told.returncode == 7
    assert "[]" in told.stdout, "a backend of its own"
    assert "Vast.ai takes the key" in told.stdout
    assert "Still rented" not in told.stdout
    assert not list(tmp_path.iterdir())


def test_without_a_command_it_says_what_can_be_tried(tmp_path: Path) -> None:
    told = rehearse(tmp_path, "")
    assert told.returncode == 0
    assert "pulumi config set vllm-anywhere:provider vastai -s runpod" in told.stdout


def test_a_closed_terminal_leaves_nothing_behind(tmp_path: Path) -> None:
    rehearsal = subprocess.Popen(
        [sys.executable, "tests/rehearse.py", "bash", "-c", "echo begun; exec sleep 100"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert rehearsal.stdout and rehearsal.stdout.readline() == "begun\n"
    rehearsal.send_signal(signal.SIGHUP)
    assert rehearsal.wait(60) == 128 + signal.SIGHUP
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_it_proposes_works_and_what_is_left_is_told(tmp_path: Path) -> None:
    from rehearse import PROPOSED

    *switch, destroy = [line.strip().replace("pulumi up", "pulumi up --yes") for line in PROPOSED.strip().splitlines()]
    told = rehearse(tmp_path, "\n".join([*switch, "vllm-anywhere status -s runpod"]))
    assert told.returncode == 0, told.stdout
    assert "Vast.ai" in told.stdout
    assert "Still rented when the rehearsal ended, and billed if it had been real: vastai." in told.stdout
    told = rehearse(tmp_path, "\n".join([switch[0], f"{destroy} --yes"]))
    assert told.returncode == 0 and "Still rented" not in told.stdout, told.stdout
