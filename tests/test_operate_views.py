"""The views that people watch and answer, in a terminal of 80 columns: nothing wraps, and the figures are there."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from emulators.runpod import RunPodEmulator
from runpod_wire import POD, client_of, created
from stub_openai import Script, serving
from terminal import COLUMNS, needed, terminal

ROOT = Path(__file__).parent.parent
pytestmark = [needed, pytest.mark.heavy]

LOCAL = {"VLLM_ANYWHERE_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
READY = {"time_to_ready_s": 1, "first_token_s": 1, "answered_at": "2026-11-21T09:01:00+00:00"}
COST = {"hourly_usd": "0.2882", "monthly_usd": "210.40", "high": "210.40", "lines": []}
KIND = "vllm-anywhere:index:Deployment"
DEPLOYMENT = f"urn:pulumi:dev::vllm-anywhere::{KIND}::deployment"
SERVER = f"urn:pulumi:dev::vllm-anywhere::{KIND}$vllm-anywhere:runpod:Pod::server"


def vllm_anywhere(*words: str) -> list[str]:
    return [sys.executable, "-c", "from ops.cli import main; main()", *words]


def fits(screen: str) -> bool:
    """Whether no line of a screen is as wide as the terminal, where it would go on in the next."""
    return max(map(len, screen.splitlines())) < COLUMNS


def pulumi(folder: Path, *names: str, **outputs: Any) -> dict[str, str]:
    """A `pulumi` by script, whose stacks have these outputs; what puts it on PATH."""
    answers = {
        "whoami": {"url": "file:///backend"},
        "ls": [{"name": name} for name in names],
        "refresh": {"steps": [{"op": "refresh", "urn": urn} for urn in (DEPLOYMENT, SERVER)]},
        "output": {"api_key": "k", "model": "stub", "ready": READY, "cost": COST, **outputs},
        "config": {},
        "export": {"deployment": {"resources": [{"urn": DEPLOYMENT, "type": KIND, "created": "2026-11-21T09:00:00Z"}]}},
    }
    folder = folder / "bin"
    folder.mkdir()
    (folder / "answers.json").write_text(json.dumps(answers))
    script = folder / "pulumi"
    script.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"answers = json.load(open({str(folder / 'answers.json')!r}))\n"
        "print(json.dumps(next(answers[word] for word in sys.argv if word in answers)))\n"
    )
    script.chmod(0o755)
    return {**LOCAL, "PATH": f"{folder}:{os.environ['PATH']}", "VLLM_ANYWHERE_STATE": str(folder)}


def test_bench_shows_live_figures_beside_its_bar_and_a_report_that_fits(tmp_path: Path) -> None:
    with serving(lambda number, body: Script(first_s=0.02, gaps_s=(0.02,) * 12)) as stub:
        words = ("--url", stub.url, "--requests", "60", "--concurrency", "4", "--charts")
        with terminal(tmp_path, vllm_anywhere("bench", *words), LOCAL) as shown:
            live = shown.until("req/s", "tok/s", "TTFT", "%", "open")
            assert fits(live), live
            (bar,) = [line for line in live.splitlines() if "req/s" in line]
            assert "4 open" in bar
            report = shown.until("ended with 0")
            assert "req/s" not in report.splitlines()[-3] and fits(report), report


def test_watch_keeps_a_row_a_stack_in_place(tmp_path: Path) -> None:
    with serving(lambda number, body: Script(first_s=0.01)) as stub:
        hardware = "RunPod pod, secure: 1x RTX 4000 Ada"
        env = pulumi(tmp_path, "dev", "staging", endpoint=stub.url, provider="runpod", hardware=hardware)
        with terminal(tmp_path, vllm_anywhere("watch", "--interval", "1"), env) as shown:
            live = shown.until("dev", "staging", "0.2882", " ms", "well")
            assert fits(live) and live.count("health") == 1, live
            before = len(stub.served)
            while len(stub.served) < before + 2:
                live = shown.until("well")
            assert live.count("health") == 1, live
            shown.type("C-c")
            assert fits(shown.until("ended with 0"))


def test_status_shows_every_stack_and_the_sum_of_what_they_cost(tmp_path: Path) -> None:
    with serving(lambda number, body: Script()) as stub:
        hardware = "RunPod pod, secure: 1x RTX 4000 Ada"
        env = pulumi(tmp_path, "dev", "staging", endpoint=stub.url, provider="runpod", hardware=hardware)
        with terminal(tmp_path, vllm_anywhere("status"), env) as shown:
            told = shown.until("ended with 0")
            assert fits(told), told
            assert told.count("0.2882") == 2 and "0.5764" in told and "answers (" in told
    with terminal(tmp_path, vllm_anywhere("status", "-s", "dev"), env) as shown:
        told = shown.until("ended with 1")
        assert fits(told) and "does not answer" in told, told


@pytest.mark.parametrize(("answer", "code", "left"), [("no", 1, 2), ("yes", 0, 0)])
def test_orphans_asks_once_and_destroys_only_after_a_yes(tmp_path: Path, answer: str, code: int, left: int) -> None:
    with RunPodEmulator() as runpod, client_of(runpod) as api:
        env = pulumi(tmp_path) | runpod.env()
        for number in (1, 2):
            created(api, "/v2/pods", {**POD, "name": f"vllm-anywhere/gone/server/{number}"})
        with terminal(tmp_path, vllm_anywhere("orphans", "runpod", "--destroy"), env) as shown:
            asked = shown.until("Destroy all 2", "Type yes:")
            table, rest = asked.split("No state in")
            assert fits(table) and asked.count("Type yes:") == 1, asked
            assert table.count("0.2568") == 2 and "0.5136" in table and "--destroy`" in rest
            shown.type(answer, "Enter")
            told = shown.until(f"ended with {code}")
            assert ("nothing was destroyed" in told, "each seen to be gone" in told) == (
                answer == "no",
                answer == "yes",
            )
        assert len(runpod.state()["pods"]) == left
