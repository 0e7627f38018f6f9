"""Several servers on this machine, driven by the real Pulumi CLI."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

import pytest
from engine import Project, answers

pytestmark = [pytest.mark.engine, pytest.mark.slow]
SERVER = "vllm-anywhere:local:Server"


def pids(project: Project) -> dict[str, int]:
    """The processes of the servers that state has, by the resource's name."""
    return {one["urn"].rpartition("::")[2]: one["outputs"]["pid"] for one in project.resources(SERVER)}


def serving(out: dict[str, Any]) -> list[bool]:
    return [answers({**out, "endpoint": one["endpoint"]}) for one in out["endpoints"]]


def test_three_servers_answer_one_that_died_is_repaired_alone_and_one_is_left_as_it_was(project: Project) -> None:
    project.config("scaling.min", "3")
    report = project.preview()
    assert "3 servers, each: this machine" in report
    assert "3 x server (vllm-anywhere:local:Server)" in report
    project.up()
    out, first = project.outputs(), pids(project)
    assert sorted(first) == ["server", "server-2", "server-3"]
    assert sorted(project.servers()) == sorted(first.values())
    assert out["endpoint"] == out["endpoints"][0]["endpoint"]
    assert [one["server"] for one in out["endpoints"]] == ["server", "server-2", "server-3"]
    assert all(one["ready"]["answered_at"] for one in out["endpoints"])
    assert serving(out) == [True, True, True]
    project.pulumi("up", "--yes", "--skip-preview", "-s", "test", "--expect-no-changes")

    os.kill(first["server-2"], signal.SIGKILL)
    assert re.findall(r"Server (\S+) updated", project.refresh()) == ["server-2"]
    project.up()
    repaired = pids(project)
    assert {name for name in first if repaired[name] != first[name]} == {"server-2"}
    assert serving(project.outputs()) == [True, True, True]

    project.config("scaling.min", "1")
    project.up()
    assert pids(project) == {"server": first["server"]}
    assert project.servers() == [first["server"]]
    assert "endpoints" not in project.outputs()
    project.destroy()
    assert project.servers() == []
