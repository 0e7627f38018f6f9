"""`vllm-anywhere watch` on a real local deployment, driven by the real Pulumi CLI."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from engine import Project, answers

from ops.stack import pulumi_command
from ops.status import status_of_all
from ops.watch import add_watch, watch
from ops.watch_look import look, request

pytestmark = pytest.mark.engine


class Cli:
    """The CLI on a project, with what was asked of it."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.asked: list[str] = []

    def __call__(self, args: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.asked.append(args[0])
        return subprocess.run(
            ["pulumi", *args, "--non-interactive"],
            cwd=self._project.folder,
            env={**self._project.env, "VLLM_ANYWHERE_REPORT": "json", "VLLM_ANYWHERE_OFFLINE": "1"},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=120,
        )

    @property
    def changes(self) -> list[str]:
        return [command for command in self.asked if command in ("up", "destroy")]


@pytest.fixture(autouse=True)
def _state(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ANYWHERE_STATE", project.env["VLLM_ANYWHERE_STATE"])
    monkeypatch.setenv("VLLM_ANYWHERE_OFFLINE", "1")


def watched(cli: Cli, *options: str, **rim: Any) -> tuple[int, list[dict[str, Any]]]:
    parser = argparse.ArgumentParser()
    add_watch(parser.add_subparsers())
    out = io.StringIO()
    code = watch(parser.parse_args(["watch", "--once", "--json", *options]), run=cli, out=out, **rim)
    return code, [json.loads(line) for line in out.getvalue().splitlines()]


def of_all(cli: Cli) -> tuple[int, bool]:
    """`status` without -s: its exit code, and whether the one stack answers."""
    out = io.StringIO()
    code = status_of_all(as_json=True, run=cli, out=out)
    (row,) = json.loads(out.getvalue())["stacks"]
    return code, row["healthy"]


def kill(project: Project) -> None:
    (pid,) = project.servers()
    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_user_who_skips_confirmations_is_looked_after_too(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.up()
    for name, value in (project.env | {"PULUMI_SKIP_CONFIRMATIONS": "true"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("ops.stack.ROOT", project.folder)
    known = look("test", pulumi_command, request, lambda _: [], lambda: datetime.now(UTC), wake=False)
    assert known and known.seen.unknown == ()


def test_a_killed_server_is_reported_and_only_heal_repairs_it(project: Project) -> None:
    project.up()
    cli = Cli(project)
    code, (row,) = watched(cli)
    assert (code, row["well"], row["healthy"], row["findings"]) == (0, True, True, [])
    assert of_all(cli) == (0, True)
    kill(project)
    assert of_all(cli) == (1, False)
    code, (row,) = watched(cli)
    assert (code, row["healthy"], [one["kind"] for one in row["findings"]]) == (1, False, ["down", "stopped"])
    assert (cli.changes, project.servers()) == ([], [])
    code, (row,) = watched(cli, "--heal")
    assert (code, row["healthy"], row["deed"]["result"]) == (0, True, "repaired")
    assert cli.changes == ["up"]
    assert answers(project.outputs())


@pytest.mark.slow
def test_a_stack_that_another_command_holds_is_watched_and_not_changed(project: Project) -> None:
    project.up()
    kill(project)
    locks = project.folder / "backend/.pulumi/locks/organization/vllm-anywhere/test"
    locks.mkdir(parents=True, exist_ok=True)
    held = {"pid": 1, "username": "somebody", "hostname": "elsewhere", "timestamp": "2026-11-21T08:55:14Z"}
    (locks / "held.json").write_text(json.dumps(held))
    code, (row,) = watched(Cli(project), "--heal")
    assert (code, row["deed"]["result"], project.servers()) == (1, "waiting", [])


@pytest.mark.slow
def test_of_two_watches_at_once_one_acts(project: Project) -> None:
    project.up()
    kill(project)
    clis = [Cli(project), Cli(project)]
    begin = threading.Barrier(2)
    results: list[list[dict[str, Any]]] = []

    def run(cli: Cli) -> None:
        begin.wait()
        results.append(watched(cli, "--heal")[1])

    threads = [threading.Thread(target=run, args=(cli,)) for cli in clis]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [command for cli in clis for command in cli.changes] == ["up"]
    assert len(project.servers()) == 1
    assert sum((row["deed"] or {}).get("result") == "repaired" for (row,) in results) == 1


def test_a_stack_past_its_time_is_destroyed_after_the_grace_period_and_not_before(project: Project) -> None:
    project.config("budget.ttl_hours", "2")
    project.up()
    cli = Cli(project)

    def at(hours: float) -> dict[str, Any]:
        return {"now": lambda: datetime.now(UTC) + timedelta(hours=hours)}

    assert watched(cli, "--heal", **at(1.9))[0] == 0
    code, (row,) = watched(cli, "--heal", **at(2.5))
    assert (code, [one["kind"] for one in row["findings"]]) == (1, ["ttl"])
    code, (row,) = watched(cli, **at(3.5))
    assert (code, cli.changes, len(project.servers())) == (1, [], 1)
    code, (row,) = watched(cli, "--heal", **at(3.5))
    assert (code, row["deed"]["result"], cli.changes) == (0, "destroyed", ["destroy"])
    assert project.servers() == []
    assert watched(cli, "--heal", **at(4)) == (0, [])
