"""What a project may use, compared with what a VM needs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from providers.gcp.machines import quota_metrics
from serving.gpus import Gpu

REQUEST = "https://console.cloud.google.com/iam-admin/quotas"


@dataclass(frozen=True)
class Quota:
    """How many of something may be used, and are."""

    limit: float
    usage: float


@dataclass(frozen=True)
class Quotas:
    """The quotas of a project, and of its regions, by metric (`NVIDIA_T4_GPUS`). Empty where nobody was asked."""

    project: Mapping[str, Quota] = field(default_factory=dict[str, Quota])
    regions: Mapping[str, Mapping[str, Quota]] = field(default_factory=dict[str, Mapping[str, Quota]])


@dataclass(frozen=True)
class QuotaFinding:
    """One sentence about a quota; `fatal` when no VM can be made."""

    text: str
    fatal: bool


def quota_findings(quotas: Quotas, gpu: Gpu, region: str, count: int, spot: bool) -> tuple[QuotaFinding, ...]:
    """What stands in the way, a sentence each.

    A quota that is used up may be used by this very deployment, so that is told and nothing more. A metric that Google
    does not list is not judged: the newest GPUs are missing there.
    """
    here = quotas.regions.get(region, {})
    found: list[QuotaFinding] = []
    for metric in quota_metrics(gpu, spot):
        quota = quotas.project.get(metric) or here.get(metric)
        where = "" if metric in quotas.project else f" in {region}"
        if quota is None:
            continue
        if quota.limit < count:
            text = f"quota {metric}{where} is {quota.limit:g} and {count} is needed: ask for it at {REQUEST}"
            found.append(QuotaFinding(text, True))
        elif quota.limit - quota.usage < count:
            used = f"{quota.usage:g} of {quota.limit:g}"
            text = f"Quota {metric}{where}: {used} are in use; a new VM fits only if this stack's own is among them."
            found.append(QuotaFinding(text, False))
    return tuple(found)
