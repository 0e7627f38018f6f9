"""What `vllm-anywhere watch` shows in a terminal of 80 columns."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from ops.watch_heal import Deed
from ops.watch_view import Row, lines, table
from serving.money import Money
from serving.watching import Finding, Probe, Seen

ROOT = Path(__file__).parent.parent
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
COST = Money(Decimal("0.2500"), Decimal("182.50"), Decimal("182.50"))
GONE = Finding("gone", "critical", "server is gone from the platform", "pulumi up --refresh -s prod", "up", ("server",))
ROWS = [
    Row("dev", NOW, Seen("dev", NOW, Probe(True, 83.4), shown=COST)),
    Row(
        "organization/shop/prod",
        NOW,
        Seen("prod", NOW, Probe(False, 0, "HTTP 502"), shown=COST, billed=Decimal("0.3100")),
        (GONE, Finding("cheaper", "info", "L4, vm, europe-west4 on gcp costs $140.00 a month, $42.50 (23%) less")),
        Deed("refused", "it would cost $400.00 a month, more than 10% above the $182.50 of before"),
    ),
    Row("asleep", NOW, Seen("asleep", NOW, None, shown=Money(Decimal(0)))),
    Row("broken", NOW, problem="the state can't be read"),
    Row("new", NOW, busy=True),
    Row("old", NOW, Seen("old", NOW, None), deed=Deed("destroyed", "its time was over")),
]


def at_80_columns() -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(table(ROWS, "history: here"))
    return out.getvalue()


def test_the_table_fits_80_columns_and_loses_no_word() -> None:
    text = at_80_columns()
    assert max(len(line) for line in text.splitlines()) <= 80
    words = " ".join(text.split())
    for said in ("83 ms", "down", "not asked", "unknown", "destroyed", "being looked at", "0.3100", "well", "0.2500"):
        assert said in words
    whole = "".join(text.split())
    for row in ROWS:
        for one in row.findings:
            assert "".join(one.text.split()[-3:]) in whole


def test_a_log_has_a_line_for_each_finding_and_for_what_was_done() -> None:
    assert [line.split(": ")[1] for line in lines(ROWS[1])] == ["critical", "info", "refused"]
    assert lines(ROWS[0]) == ["dev: well"]


@pytest.mark.skipif(not shutil.which("tmux") and not os.environ.get("CI"), reason="no tmux")
def test_in_a_terminal_the_table_stays_in_place_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    """tmux with 80 columns, a `pulumi` by script, and an endpoint that nothing listens on."""
    deployment = "urn:pulumi:dev::x::vllm-anywhere:index:Deployment::deployment"
    server = "urn:pulumi:dev::x::vllm-anywhere:index:Deployment$vllm-anywhere:local:Server::server"
    ready = {"time_to_ready_s": 1, "first_token_s": 1, "answered_at": None}
    outputs = {"endpoint": "http://127.0.0.1:9/v1", "api_key": "k", "model": "m", "provider": "local"}
    outputs |= {"hardware": "h", "ready": ready, "cost": {"hourly_usd": "0.25", "monthly_usd": "182.50"}}
    answers = {
        "whoami": {"url": "file:///b"},
        "ls": [{"name": "dev"}],
        "refresh": {"steps": [{"op": "refresh", "urn": deployment}, {"op": "delete", "urn": server}]},
        "output": outputs,
        "config": {},
    }
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    script = tmp_path / "pulumi"
    script.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"answers = json.load(open({str(tmp_path / 'answers.json')!r}))\n"
        "print(json.dumps(next(answers[word] for word in sys.argv if word in answers)))\n"
    )
    script.chmod(0o755)
    env = f"PATH={tmp_path}:$PATH VLLM_ANYWHERE_STATE={tmp_path} VLLM_ANYWHERE_OFFLINE=1"
    program = f"{sys.executable} -c 'from ops.cli import main; main()' watch --interval 1"
    # Without the trap, the shell ends with what it has started.
    command = f"trap : INT; cd {ROOT}; {env} {program}; echo ended with $?; exec cat"
    tmux = ["tmux", "-S", str(tmp_path / "tmux")]
    subprocess.run([*tmux, "new-session", "-d", "-x", "80", "-y", "24", "sh", "-c", command], check=True)
    try:
        shown = until(tmux, "vllm-anywhere logs --why -s dev")
        assert shown.count("health") == 1, shown
        assert "server is gone from the platform" in shown
        assert max(map(len, shown.splitlines())) <= 80
        subprocess.run([*tmux, "send-keys", "C-c"], check=True)
        assert until(tmux, "ended with 0").count("health") == 1
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)


def until(tmux: list[str], text: str) -> str:
    """The screen once it has the text. What runs there runs in real time."""
    shown = ""
    for _ in range(300):
        shown = subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True).stdout
        if text in shown:
            break
        time.sleep(0.1)
    assert text in shown, shown
    return shown
