"""The job plane of RunPod's serverless endpoints, through RunPod's own package: what a request is waiting for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from providers.runpod.client import key_from


def waiting_on(endpoint_id: str) -> str:
    """Workers and queued jobs of an endpoint in a few words; "" when RunPod does not say, or its package is absent.

    The package is an extra that takes two seconds to import, so only somebody who already waits pays for it.
    """
    try:
        from runpod.endpoint import Endpoint
    except ImportError:
        return ""
    try:
        return summary(Endpoint(endpoint_id, key_from(os.environ)).health())
    except Exception:
        # A pod has no jobs, which is an error of the package's; and whatever else it raises, the wait goes on.
        return ""


def summary(health: Mapping[str, Any]) -> str:
    """`{"jobs": {"inQueue": 1}, "workers": {"initializing": 1}}` -> "1 job in the queue; workers: 1 initializing"."""
    queued = health.get("jobs", {}).get("inQueue", 0)
    workers = {state: count for state, count in health.get("workers", {}).items() if count}
    jobs = f"{queued} job{'' if queued == 1 else 's'} in the queue"
    shown = ", ".join(f"{count} {state}" for state, count in workers.items()) or "none"
    return f"{jobs}; workers: {shown}"
