"""What the emulated RunPod rents: GPU types with list prices and stock, CPU types, data centers.

Serverless prices are RunPod's table of 2026-06-08 (USD per second, times 3600). Pod prices are of this emulator alone:
the right order of magnitude, and no source for anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

HOURS_PER_MONTH = Decimal(730)
DISK_GB_MONTH = Decimal("0.10")
VOLUME_GB_MONTH = Decimal("0.10")
STOPPED_VOLUME_GB_MONTH = Decimal("0.20")
NETWORK_VOLUME_GB_MONTH = Decimal("0.07")

LEVELS = ("NONE", "LOW", "MEDIUM", "HIGH")
CUDA_VERSIONS = ("12.8", "13.0")


@dataclass(frozen=True)
class GpuType:
    """A row of the catalogue; prices in USD per GPU-hour, `memory` in GB."""

    id: str
    name: str
    pool: str | None
    memory: int
    secure: Decimal
    community: Decimal
    serverless: Decimal | None


def _gpu(id: str, name: str, pool: str | None, memory: int, secure: str, community: str, per_second: str) -> GpuType:
    serverless = Decimal(per_second) * 3600 if pool else None
    return GpuType(id, name, pool, memory, Decimal(secure), Decimal(community), serverless)


GPUS = {
    gpu.id: gpu
    for gpu in (
        _gpu("NVIDIA RTX A4000", "RTX A4000", "AMPERE_16", 16, "0.25", "0.17", "0.00016"),
        _gpu("NVIDIA RTX A4500", "RTX A4500", "AMPERE_16", 20, "0.25", "0.19", "0.00016"),
        _gpu("NVIDIA RTX 2000 Ada Generation", "RTX 2000 Ada", "AMPERE_16", 16, "0.24", "0.20", "0.00016"),
        _gpu("NVIDIA RTX 4000 Ada Generation", "RTX 4000 Ada", "AMPERE_16", 20, "0.26", "0.20", "0.00016"),
        _gpu("NVIDIA L4", "L4", "AMPERE_24", 24, "0.39", "0.32", "0.00019"),
        _gpu("NVIDIA RTX A5000", "RTX A5000", "AMPERE_24", 24, "0.27", "0.16", "0.00019"),
        _gpu("NVIDIA GeForce RTX 3090", "RTX 3090", "AMPERE_24", 24, "0.46", "0.22", "0.00019"),
        _gpu("NVIDIA GeForce RTX 4090", "RTX 4090", "ADA_24", 24, "0.69", "0.34", "0.00031"),
        _gpu("NVIDIA A40", "A40", "AMPERE_48", 48, "0.40", "0.35", "0.00034"),
        _gpu("NVIDIA RTX A6000", "RTX A6000", "AMPERE_48", 48, "0.49", "0.33", "0.00034"),
        _gpu("NVIDIA L40", "L40", "ADA_48_PRO", 48, "0.99", "0.69", "0.00053"),
        _gpu("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada", "ADA_48_PRO", 48, "0.77", "0.74", "0.00053"),
        _gpu("NVIDIA L40S", "L40S", "ADA_48_PRO", 48, "0.86", "0.79", "0.00053"),
        _gpu("NVIDIA A100 80GB PCIe", "A100 PCIe", "AMPERE_80", 80, "1.64", "1.19", "0.00076"),
        _gpu("NVIDIA H100 80GB HBM3", "H100 SXM", "ADA_80_PRO", 80, "2.99", "2.69", "0.00116"),
        _gpu("NVIDIA H200", "H200 SXM", "HOPPER_141", 141, "3.99", "3.59", "0.00155"),
        _gpu("NVIDIA B200", "B200", "BLACKWELL_180", 180, "5.98", "5.49", "0.00240"),
        _gpu("NVIDIA GeForce RTX 3070", "RTX 3070", None, 8, "0.13", "0.10", "0"),
    )
}
POOLS = frozenset(gpu.pool for gpu in GPUS.values() if gpu.pool)


@dataclass(frozen=True)
class DataCenter:
    """A place; `country` is ISO 3166 alpha-2, `cuda` the newest version that its hosts' drivers have."""

    id: str
    region: str
    country: str
    cuda: str

    @property
    def name(self) -> str:
        return self.id.replace("-", " ")


_PLACES = {
    "EUROPE": "EU-RO-1 EU-SE-1 EU-CZ-1 EU-NL-1 EU-FR-1 EUR-IS-1 EUR-IS-2 EUR-IS-3 EUR-NO-1",
    "NORTH_AMERICA": "CA-MTL-1 CA-MTL-2 CA-MTL-3 US-CA-2 US-DE-1 US-GA-1 US-GA-2 US-IL-1 US-KS-2 US-KS-3 US-NC-1 "
    "US-TX-1 US-TX-3 US-TX-4 US-WA-1",
    "OCEANIA": "OC-AU-1",
    "ASIA": "AP-JP-1",
}
_OLD_DRIVERS = frozenset({"EU-NL-1"})


def _country(id: str) -> str:
    """The first part of an id is a continent, but for the United States and Canada."""
    first, second, _ = id.split("-")
    return first if first in {"US", "CA"} else second


DATA_CENTERS = {
    id: DataCenter(id, region, _country(id), "12.8" if id in _OLD_DRIVERS else "13.0")
    for region, ids in _PLACES.items()
    for id in ids.split()
}


@dataclass(frozen=True)
class CpuType:
    """A CPU flavour; prices in USD per vCPU-hour, memory in GB per vCPU."""

    id: str
    name: str
    memory_per_vcpu: Decimal
    secure: Decimal
    serverless: Decimal


CPUS = {
    cpu.id: cpu
    for cpu in (
        CpuType("cpu3c", "Compute-Optimized", Decimal(2), Decimal("0.03"), Decimal("0.04")),
        CpuType("cpu3g", "General Purpose", Decimal(4), Decimal("0.04"), Decimal("0.05")),
    )
}


class Stock(BaseModel):
    """Availability by GPU type and data center; HIGH where nothing else was set."""

    levels: dict[str, dict[str, str]] = {}

    def set(self, gpu: str, level: str, data_center: str | None = None) -> None:
        if level not in LEVELS:
            raise ValueError(f"{level!r} is no level; there are {', '.join(LEVELS)}")
        if gpu not in GPUS or (data_center and data_center not in DATA_CENTERS):
            raise ValueError(f"{gpu!r} in {data_center or 'all data centers'} is not in the catalogue")
        for place in [data_center] if data_center else DATA_CENTERS:
            self.levels.setdefault(gpu, {})[place] = level

    def level(self, gpu: str, data_center: str) -> str:
        return self.levels.get(gpu, {}).get(data_center, "HIGH")

    def place(self, gpu: str, wanted: list[str], min_cuda: str | None, cuda: list[str]) -> DataCenter | None:
        """The first data center, in the order they were wanted, that has the GPU and a host with that CUDA."""
        for id in wanted or DATA_CENTERS:
            host = DATA_CENTERS.get(id)
            if host and self.level(gpu, id) != "NONE" and _cuda_fits(host.cuda, min_cuda, cuda):
                return host
        return None


def gpu_row(gpu: GpuType, stock: Stock, query: CatalogQuery) -> dict[str, Any]:
    """A GPU type as `GET /v2/catalog/gpus` shows it."""
    price = {"secure": float(gpu.secure), "community": float(gpu.community)}
    if gpu.serverless is not None:
        price["serverless"] = float(gpu.serverless)
    row: dict[str, Any] = {
        "id": gpu.id,
        "name": gpu.name,
        "pool": gpu.pool,
        "manufacturer": "NVIDIA",
        "memory": gpu.memory,
        "secure": True,
        "community": True,
        "price": price,
        "maxCount": {"secure": 8, "community": 4},
    }
    if not query.availability:
        return row
    places = [place for place in DATA_CENTERS.values() if query.admits(place)]
    levels = {place: stock.level(gpu.id, place.id) for place in places if gpu.pool or query.products - {"SERVERLESS"}}
    row["availability"] = max(levels.values(), key=LEVELS.index, default="NONE")
    if listed := [
        {"id": place.id, "name": place.name, "availability": level}
        for place, level in levels.items()
        if level != "NONE"
    ]:
        row["dataCenters"] = listed
    row["cudaVersions"] = [
        {"version": version, "available": any(p.cuda == version and level != "NONE" for p, level in levels.items())}
        for version in CUDA_VERSIONS
    ]
    return row


@dataclass(frozen=True)
class CatalogQuery:
    """The filters of `GET /v2/catalog/gpus` that this emulator honours."""

    availability: bool
    products: frozenset[str]
    countries: frozenset[str]
    min_cuda: str | None
    cuda: tuple[str, ...]

    @classmethod
    def of(cls, query: Mapping[str, list[str]]) -> CatalogQuery:
        def listed(name: str) -> list[str]:
            return [item for value in query.get(name, []) for item in value.split(",")]

        return cls(
            availability="AVAILABILITY" in listed("include"),
            products=frozenset(listed("product")),
            countries=frozenset(listed("countryCodes")),
            min_cuda=next(iter(listed("minCudaVersion")), None),
            cuda=tuple(listed("cudaVersions")),
        )

    def admits(self, place: DataCenter) -> bool:
        in_country = not self.countries or place.country in self.countries
        return in_country and _cuda_fits(place.cuda, self.min_cuda, list(self.cuda))


def data_center_row(place: DataCenter, stock: Stock, availability: bool) -> dict[str, Any]:
    """A data center as `GET /v2/catalog/datacenters` shows it."""
    row: dict[str, Any] = {
        "id": place.id,
        "name": place.name,
        "region": place.region,
        "globalNetwork": True,
        "networkVolumeTypes": ["STANDARD", "HIGH_PERFORMANCE"],
        "compliance": ["GDPR"] if place.region == "EUROPE" else [],
    }
    if availability:
        row["gpuAvailability"] = [
            {"id": gpu.id, "name": gpu.name, "availability": stock.level(gpu.id, place.id)} for gpu in GPUS.values()
        ]
    return row


def cpu_row(cpu: CpuType) -> dict[str, Any]:
    """A CPU type as `GET /v2/catalog/cpus` shows it."""
    return {
        "id": cpu.id,
        "name": cpu.name,
        "group": "Gen 3",
        "vcpu": {"min": 2, "max": 32},
        "ramGbPerVcpu": float(cpu.memory_per_vcpu),
        "price": {"securePerVcpu": float(cpu.secure), "serverlessPerVcpu": float(cpu.serverless)},
    }


def _cuda_fits(host: str, floor: str | None, exact: list[str]) -> bool:
    return (not floor or _version(host) >= _version(floor)) and (not exact or host in exact)


def _version(text: str) -> tuple[int, ...]:
    """As numbers: 12.11 is above 12.2."""
    return tuple(int(part) for part in text.split("."))
