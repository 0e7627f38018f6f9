"""Which stack an unfinished operation belongs to, by what it would make."""

from __future__ import annotations

from typing import Any

import pytest

from ops.backend import Backend, Deployment, StackState

URN = "urn:pulumi:dev::shop::gcp:compute/instance:Instance::server"


def backend(resource: dict[str, Any]) -> Backend:
    making = {"resource": {"urn": URN, "type": "gcp:compute/instance:Instance", **resource}, "type": "creating"}
    return Backend("file://x", (StackState("dev", Deployment.model_validate({"pending_operations": [making]})),))


@pytest.mark.parametrize(
    ("resource", "label", "stack"),
    [
        ({"inputs": {"label": "shop/dev/server/2"}}, "shop/dev/server/2", "dev"),
        ({"inputs": {"label": "shop/dev/server/2"}}, "shop/dev/server/1", ""),
        ({"inputs": {"zone": "europe-west4-a"}}, "shop/dev/server/1", "dev"),
        ({"inputs": {}}, "shop/dev/other/1", ""),
    ],
)
def test_what_is_being_made_is_claimed_by_its_label_or_else_by_its_urn(
    resource: dict[str, Any], label: str, stack: str
) -> None:
    assert backend(resource).claimant(label) == stack
