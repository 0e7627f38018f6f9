"""The end that Google itself sets to a VM: `budget.ttl_hours`, kept even when nobody watches.

https://cloud.google.com/compute/docs/instances/limit-vm-runtime
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from providers.gcp.options import GcpOptions
from serving.spec import DeploymentSpec

LONGEST_S = 120 * 24 * 3600
SHORTEST_S = 30


def run_limit(spec: DeploymentSpec, options: GcpOptions) -> Mapping[str, Any]:
    """The part of `scheduling` that ends a VM; empty when Google has no such limit, or a group would replace the VM.

    It counts from each start of the VM. A spot VM is stopped, as it is when Google needs its place, since there is one
    action for both; another is deleted with its disk. To change it takes a new VM.
    """
    ttl = _seconds(spec)
    if ttl is None or ttl > LONGEST_S or options.ha != "none":
        return {}
    return {
        "max_run_duration": {"seconds": max(SHORTEST_S, ttl)},
        "instance_termination_action": "STOP" if spec.hardware.spot else "DELETE",
    }


def lifetime_notes(spec: DeploymentSpec, options: GcpOptions) -> Iterator[str]:
    """What the preview says of it."""
    if (ttl := _seconds(spec)) is None:
        return
    if limit := run_limit(spec, options):
        ends, rest = ("stops", "disk and address") if spec.hardware.spot else ("deletes", "address")
        yield (
            f"Google {ends} the VM {limit['max_run_duration']['seconds'] / 3600:g} hours after it has started "
            f"(vllm-anywhere:budget.ttl_hours); its {rest} and secrets cost something until `pulumi destroy`. Another "
            "time takes another VM."
        )
    elif ttl > LONGEST_S:
        yield "Google ends no VM later than 120 days after its start; `vllm-anywhere watch --heal` sees to its time."
    else:
        yield "A group would replace a VM that Google ends; `vllm-anywhere watch --heal` sees to its time."


def _seconds(spec: DeploymentSpec) -> int | None:
    ttl = spec.budget.ttl_hours
    return None if ttl is None else round(ttl * 3600)
