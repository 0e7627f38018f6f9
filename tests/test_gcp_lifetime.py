"""The end that Google sets to a VM by itself: `budget.ttl_hours` on GCP. Emulated."""

from __future__ import annotations

import argparse
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from engine import Project
from test_gcp_engine import INSTANCE, cloud, vm

from ops.watch import add_watch, watch
from providers.gcp.lifetime import lifetime_notes, run_limit
from providers.gcp.options import GcpOptions
from serving.spec import DeploymentSpec
from tests.doubles.gcp.cloud import Cloud

__all__ = ["cloud"]


def limit(hours: float | None, *, spot: bool = False, ha: str = "none") -> tuple[Any, str]:
    """What a VM's scheduling gets, and what preview says of it."""
    spec = DeploymentSpec.model_validate({"budget": {"ttl_hours": hours}, "hardware": {"spot": spot}})
    options = GcpOptions.model_validate({"ha": ha})
    return run_limit(spec, options), " ".join(lifetime_notes(spec, options))


def test_a_vm_is_deleted_and_a_spot_vm_stopped_when_the_time_is_over() -> None:
    found, note = limit(8)
    assert found == {"max_run_duration": {"seconds": 28800}, "instance_termination_action": "DELETE"}
    assert note.startswith("Google deletes the VM 8 hours after it has started")
    found, note = limit(8, spot=True)
    assert found["instance_termination_action"] == "STOP"
    assert "disk and address and secrets cost something" in note


def test_what_google_cannot_limit_is_left_to_the_watch_and_said() -> None:
    assert limit(None) == ({}, "")
    assert limit(0.001)[0]["max_run_duration"] == {"seconds": 30}
    assert limit(2880)[0] and not limit(2881)[0]
    assert "120 days" in limit(2881)[1]
    assert limit(8, ha="mig") == ({}, limit(8, ha="mig")[1])
    assert "A group would replace" in limit(8, ha="mig")[1]


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.allow_hosts(["127.0.0.0/8", "::1", "localhost"])
def test_a_vm_that_google_has_ended_is_not_made_again_and_the_rest_is_destroyed(
    project: Project, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.config("budget.ttl_hours", "2")
    project.up()
    assert vm(project)["scheduling"]["maxRunDuration"]["seconds"] == 7200
    project.preview("--expect-no-changes")
    for name, value in project.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("ops.stack.ROOT", project.folder)
    cloud.outlive(vm(project)["name"])
    assert cloud.all("Instance") == []
    kinds, result = healed(hours=2.5)
    assert {"ttl", "gone"} <= kinds and result == ""
    assert cloud.all("Instance") == [] and project.resources(INSTANCE)
    assert healed(hours=3.5)[1] == "destroyed"
    assert cloud.all() == []


def healed(hours: float) -> tuple[set[str], str]:
    """What a watch finds so long after, and what it did."""
    parser = argparse.ArgumentParser()
    add_watch(parser.add_subparsers())
    out = io.StringIO()
    args = parser.parse_args(["watch", "--once", "--json", "--heal", "-s", "test"])
    watch(args, out=out, now=lambda: datetime.now(UTC) + timedelta(hours=hours))
    row = json.loads(out.getvalue())
    return {one["kind"] for one in row["findings"]}, (row["deed"] or {}).get("result", "")
