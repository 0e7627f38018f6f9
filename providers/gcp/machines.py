"""Which zones have which GPU, and how a machine type takes it. Pure.

`data/zones.csv` is from skypilot-org/skypilot-catalog (catalogs/v8/gcp/vms.csv). A GPU that it lacks can be used in
zones that are named in `vllm-anywhere:gcp.zones`: nothing is known against them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Sequence
from functools import cache
from importlib.resources import files

from serving.gpus import Gpu

ATTACHED = "n1-"
"""The family that takes GPUs as attachments; in all others the machine type brings them."""

_ZONE = re.compile(r"[a-z]+-[a-z]+\d+-[a-z]")


@cache
def _zones() -> dict[str, tuple[str, ...]]:
    text = files("providers.gcp").joinpath("data", "zones.csv").read_text(encoding="utf-8")
    return {row["gpu"]: tuple(row["zones"].split()) for row in csv.DictReader(text.splitlines())}


def zones_with(gpu: str, region: str = "") -> tuple[str, ...]:
    """Zones that have a GPU (the catalogue's name), of one region or of all; () when nothing is known of it."""
    return tuple(zone for zone in _zones().get(gpu, ()) if region in ("", region_of(zone)))


def is_zone(name: str) -> bool:
    return _ZONE.fullmatch(name) is not None


def region_of(zone: str) -> str:
    """`europe-west4` of `europe-west4-a`."""
    return zone.rpartition("-")[0]


def zones_for(gpu: str, region: str, asked: Sequence[str], live: Collection[str] = ()) -> tuple[str, ...]:
    """The zones to try in a region: the user's own that are in it, in their order, else all that have the GPU.

    `live` are the zones that have it by Google's own word; empty where it wasn't asked, and the table counts. Zones
    that nobody named come of the table alone: what becomes an input must not change from one day to the next.
    """
    if asked:
        known = live or zones_with(gpu)
        return tuple(zone for zone in asked if region_of(zone) == region and (not known or zone in known))
    return zones_with(gpu, region)


def accelerator(gpu: Gpu, machine: str) -> str:
    """What has to be attached to the machine (`nvidia-tesla-t4`); "" where it comes with the machine type.

    An empty list is not the same as none: it makes a difference that never goes away
    (GoogleCloudPlatform/cluster-toolkit#542).
    """
    names = gpu.platform_names.get("gcp", ())
    return names[0] if machine.startswith(ATTACHED) and names else ""


def quota_metrics(gpu: Gpu, spot: bool) -> tuple[str, ...]:
    """The quotas that a VM with this GPU needs: the project's own, and the region's for the GPU."""
    names = gpu.platform_names.get("gcp", ())
    if not names:
        return ("GPUS_ALL_REGIONS",)
    kind = names[0].replace("-tesla-", "-").upper().replace("-", "_") + "_GPUS"
    return ("GPUS_ALL_REGIONS", f"PREEMPTIBLE_{kind}" if spot else kind)
