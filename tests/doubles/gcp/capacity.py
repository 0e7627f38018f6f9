"""Where there are GPUs, how many a project may use, and what Google says when there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.doubles.gcp import answers
from tests.doubles.gcp.cloud import Cloud
from tests.doubles.gcp.kinds import short

_ZONES = {
    "nvidia-tesla-t4": """europe-west1-b/c/d europe-west4-a/b/c europe-west2-a/b europe-west3-b europe-central2-b/c
        us-central1-a/b/c/f us-east1-b/c/d us-east4-a/b/c us-west1-a/b us-west2-b/c us-west3-b us-west4-a/b
        northamerica-northeast1-c southamerica-east1-a/b/c asia-east1-a/c asia-east2-a/c asia-northeast1-a/c
        asia-northeast3-b/c asia-south1-a/b asia-southeast1-a/b/c asia-southeast2-a/b australia-southeast1-a/c
        me-west1-b/c""",
    "nvidia-l4": """europe-west1-b/c europe-west2-a/b europe-west3-a/b europe-west4-a/b/c europe-west6-b/c
        us-central1-a/b/c us-east1-b/c/d us-east4-a/c us-west1-a/b/c us-west4-a/c""",
}
ZONES = {
    gpu: frozenset(
        f"{region}-{letter}" for region, _, letters in (each.rpartition("-") for each in text.split())
        for letter in letters.split("/")
    )
    for gpu, text in _ZONES.items()
}  # fmt: skip
"""Zones by accelerator (https://docs.cloud.google.com/compute/docs/gpus/gpu-regions-zones)."""
_BUILT_IN = {"4": 1, "8": 1, "12": 1, "16": 1, "24": 2, "32": 1, "48": 4, "96": 8}
"""GPUs of a g2-standard machine by its cores."""


@dataclass(frozen=True)
class Shortage:
    """Why no machine starts: the operation's error code, and the text that the provider prints."""

    code: str
    said: str


def accelerators(inputs: Mapping[str, Any]) -> dict[str, int]:
    """GPUs of a machine by type: attached ones, or those that come with a G2."""
    machine = short(inputs["machineType"])
    if machine.startswith("g2-"):
        return {"nvidia-l4": _BUILT_IN[machine.rsplit("-", 1)[-1]]}
    given = inputs.get("guestAccelerators") or []
    return {short(each["type"]): int(each["count"]) for each in given if each["count"]}


def shortage(cloud: Cloud, inputs: Mapping[str, Any], where: Mapping[str, str], *, but: str = "") -> Shortage | None:
    """What a machine with these inputs lacks; the instance `but` is not counted as using anything."""
    project, zone = where["project"], where["zone"]
    region = zone.rpartition("-")[0]
    faults = cloud.faults()
    gpus = accelerators(inputs)
    spot = is_spot(inputs)
    for gpu, count in gpus.items():
        for metric, at, use in (
            ("GPUS_ALL_REGIONS", "", used(cloud, but)),
            (metric_of(gpu, spot), region, used(cloud, but, gpu, region, spot)),
        ):
            limit = faults.quotas.get(f"{metric}/{at}".rstrip("/"))
            if limit is not None and use + count > limit:
                return Shortage("QUOTA_EXCEEDED", answers.quota(metric, at, limit))
    if zone not in faults.stockout:
        return None
    elsewhere = faults.stockout[zone]
    gpu = next((f"{count} {gpu}" for gpu, count in gpus.items()), "")
    code = f"ZONE_RESOURCE_POOL_EXHAUSTED{'_WITH_DETAILS' if elsewhere else ''}"
    return Shortage(code, answers.stockout(project, zone, short(inputs["machineType"]), gpu, elsewhere))


def metric_of(gpu: str, spot: bool) -> str:
    """The quota of a GPU in a region."""
    model = gpu.removeprefix("nvidia-").removeprefix("tesla-").upper()
    return f"{'PREEMPTIBLE_' if spot else ''}NVIDIA_{model}_GPUS"


def is_spot(inputs: Mapping[str, Any]) -> bool:
    return bool((inputs.get("scheduling") or {}).get("preemptible"))


def used(cloud: Cloud, but: str, gpu: str = "", region: str = "", spot: bool | None = None) -> int:
    return sum(
        count
        for each in cloud.all("Instance")
        if each.id != but and each.outputs["currentStatus"] == "RUNNING" and each.outputs["zone"].startswith(region)
        if spot is None or spot is is_spot(each.inputs)
        for model, count in accelerators(each.inputs).items()
        if model == gpu or not gpu
    )
