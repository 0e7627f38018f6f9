"""The rows of `benchmarks/offers.py`: a made-up marketplace, as offers of ours and as a file for the peers."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path

from serving.gpus import gpu
from serving.models import Model, model
from serving.offers import Offer, Rate
from serving.preflight import Host, preflight
from serving.spec import DeploymentSpec

MODEL = model("Qwen/Qwen3-4B-Instruct-2507")
SPEC = DeploymentSpec.model_validate({"model": {"name": MODEL.name}, "placement": {"regions": []}})
"""The default spec, but anywhere: gpuhunt has no filter for places."""

# Catalogue name -> gpuhunt's name and GB: every GPU that both know, but for those of 16 GB on which the model does not
# start while it does on others of 16 GB (A16, RTX 5080): that is no question that memory and capability can answer.
GPUS = {
    "T4": ("T4", 16),
    "L4": ("L4", 24),
    "A10": ("A10", 24),
    "A40": ("A40", 48),
    "L40": ("L40", 48),
    "L40S": ("L40S", 48),
    "A100 40GB SXM": ("A100", 40),
    "A100 80GB SXM": ("A100", 80),
    "H100 SXM": ("H100", 80),
    "H100 NVL": ("H100NVL", 94),
    "H200": ("H200", 141),
    "B200": ("B200", 180),
    "V100 16GB": ("V100", 16),
    "V100 32GB": ("V100", 32),
    "P100 16GB": ("P100", 16),
    "RTX A4000": ("A4000", 16),
    "RTX A4500": ("A4500", 20),
    "RTX A5000": ("A5000", 24),
    "RTX A6000": ("A6000", 48),
    "RTX 2000 Ada": ("RTX2000Ada", 16),
    "RTX 4000 Ada": ("RTX4000Ada", 20),
    "RTX 6000 Ada": ("RTX6000Ada", 48),
    "RTX PRO 4500": ("RTXPRO4500", 32),
    "RTX PRO 6000": ("RTXPRO6000", 96),
    "Quadro RTX 6000": ("RTX6000", 24),
    "RTX 2060": ("RTX2060", 6),
    "RTX 2060 12GB": ("RTX2060", 12),
    "RTX 2070": ("RTX2070", 8),
    "RTX 2070 SUPER": ("RTX2070SUPER", 8),
    "RTX 2080": ("RTX2080", 8),
    "RTX 2080 SUPER": ("RTX2080SUPER", 8),
    "RTX 2080 Ti": ("RTX2080Ti", 11),
    "RTX 3050": ("RTX3050", 8),
    "RTX 3060": ("RTX3060", 12),
    "RTX 3060 Ti": ("RTX3060Ti", 8),
    "RTX 3070": ("RTX3070", 8),
    "RTX 3070 Ti": ("RTX3070Ti", 8),
    "RTX 3080": ("RTX3080", 10),
    "RTX 3080 Ti": ("RTX3080Ti", 12),
    "RTX 3090": ("RTX3090", 24),
    "RTX 3090 Ti": ("RTX3090Ti", 24),
    "RTX 4060": ("RTX4060", 8),
    "RTX 4060 Ti": ("RTX4060Ti", 8),
    "RTX 4060 Ti 16GB": ("RTX4060Ti", 16),
    "RTX 4070": ("RTX4070", 12),
    "RTX 4070 SUPER": ("RTX4070SUPER", 12),
    "RTX 4070 Ti": ("RTX4070Ti", 12),
    "RTX 4070 Ti SUPER": ("RTX4070TiSUPER", 16),
    "RTX 4080": ("RTX4080", 16),
    "RTX 4080 SUPER": ("RTX4080SUPER", 16),
    "RTX 4090": ("RTX4090", 24),
    "RTX 5060": ("RTX5060", 8),
    "RTX 5070": ("RTX5070", 12),
    "RTX 5090": ("RTX5090", 32),
}
COUNTS = (1, 2, 4, 8)
COUNTRIES = ("BG", "CA", "CZ", "DE", "ES", "FR", "GB", "JP", "NL", "NO", "PL", "RO", "SE", "TW", "UA", "US")
DAY = date(2026, 11, 1)


@dataclass(frozen=True, slots=True)
class Row:
    """One machine for rent. `price` is US dollars an hour; `gpuhunt` and `memory_gb` name its GPU for the peers."""

    sku: str
    gpu: str
    gpuhunt: str
    memory_gb: int
    gpu_count: int
    country: str
    price: Decimal


@dataclass(frozen=True, slots=True)
class Needs:
    """What fitting comes to where a tool knows GPUs by memory, capability or name only."""

    memory_gb: int
    capability: tuple[int, int]
    gpus: tuple[str, ...]


def made_up(number: int, seed: int = 1) -> list[Row]:
    """Rows with every GPU, count and country equally often. No two cost the same: there is one right order."""
    chance = random.Random(seed)
    prices = chance.sample(range(1_000, 1_000 + 3 * number), number)
    names = list(GPUS)
    rows: list[Row] = []
    for index, price in enumerate(prices):
        name = chance.choice(names)
        count, country = chance.choice(COUNTS), chance.choice(COUNTRIES)
        rows.append(Row(f"m{index}", name, *GPUS[name], count, country, Decimal(price) / 10_000))
    return rows


def needs(spec: DeploymentSpec = SPEC, shape: Model = MODEL) -> Needs:
    """The least memory and capability of the GPUs that the model fits on, and their names.

    Raises:
        ValueError: they do not tell those GPUs from the others, so that tools would be asked different questions.
    """
    fitting = [name for name in GPUS if preflight(spec, shape, gpu(name), Host("vastai")).ok]
    memory = min(GPUS[name][1] for name in fitting)
    capability = min(gpu(name).compute_capability for name in fitting)
    told = [name for name in GPUS if GPUS[name][1] >= memory and gpu(name).compute_capability >= capability]
    if told != fitting:
        raise ValueError(f"{memory} GB and {capability} do not tell which GPUs fit: {set(told) ^ set(fitting)}")
    return Needs(memory, capability, tuple(fitting))


def offers(rows: Iterable[Row], *, metered: bool = False) -> list[Offer]:
    """The rows as offers. `metered` ones bill disk and traffic too, at one price for all: the order stays the same."""
    return [
        Offer(
            platform="vastai",
            kind="instance",
            sku=row.sku,
            gpu=row.gpu,
            gpu_count=row.gpu_count,
            region="",
            country=row.country,
            tier="secure",
            spot=False,
            rates=(_rate("GPU", "Hours", row.price, "running"), *(_meters() if metered else ())),
            availability="high",
        )
        for row in rows
    ]


def write(rows: Sequence[Row], path: Path) -> None:
    """One CSV file, which each peer turns into its own form."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])))
        writer.writeheader()
        writer.writerows(map(asdict, rows))


def _meters() -> tuple[Rate, ...]:
    return (
        _rate("disk", "GB-Months", Decimal("0.15"), "kept"),
        _rate("download", "GB", Decimal("0.005"), "download"),
        _rate("upload", "GB", Decimal("0.01"), "upload"),
    )


def _rate(meter: str, unit: str, price: Decimal, bills: str) -> Rate:
    return Rate(meter, unit, price, "live", "", DAY, "", bills=bills, month_hours=720)  # type: ignore[arg-type]
