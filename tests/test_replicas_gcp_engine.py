"""Several VMs on Google Cloud, under the real Pulumi CLI and the real `pulumi_gcp`, on the double of its plugin."""

from __future__ import annotations

import pytest
from engine import Project, answers

pytest.importorskip("pulumi_gcp", reason="the gcp extra is not installed")

from test_gcp_engine import INSTANCE, cloud

from tests.doubles.gcp.cloud import Cloud

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.allow_hosts(["127.0.0.0/8", "::1", "localhost"]),
]
__all__ = ["cloud"]


def ids(project: Project) -> dict[str, str]:
    return {
        one["urn"].rpartition("::")[2]: one["outputs"]["instanceId"]
        for one in project.resources(INSTANCE)
        if not one.get("delete")
    }


def test_two_vms_serve_under_one_authority_and_the_first_is_left_as_it_was(project: Project, cloud: Cloud) -> None:
    project.up()
    before = ids(project)
    project.config("scaling.min", "2")
    project.up()
    both, out = ids(project), project.outputs()
    assert sorted(both) == ["server", "server-2"]
    assert both["server"] == before["server"]
    # Each by its own address, and by the one certificate that clients have.
    assert [answers({**out, "endpoint": one["endpoint"]}) for one in out["endpoints"]] == [True, True]
    project.config("scaling.min", "1")
    project.up()
    assert ids(project) == before
    project.destroy()
    assert not cloud.all()
