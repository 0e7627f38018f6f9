"""What RunPod rents now and at which price: its live catalogue, or the dated snapshot when it does not answer.

Without a key nothing is asked: the catalogue needs one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Literal, cast

from providers import market
from providers.base import PlatformError
from providers.market import Market
from providers.runpod.answers import Availability, GpuType, Pod, PodGpu
from providers.runpod.client import RunPod, connect
from serving.gpus import UnknownGpu, gpu_on
from serving.offers import Offer, Rate, Tier
from serving.places import place, regions_on
from serving.snapshot import rate_of
from serving.spec import HOURS_PER_MONTH, DeploymentSpec

_CENT_OF_A_CENT = Decimal("0.0001")
_TB = 1000
CATALOGUE_URL = "https://api.runpod.io/v2/catalog/gpus"

_LEVELS: tuple[Availability, ...] = ("NONE", "LOW", "MEDIUM", "HIGH")
_EVIDENCE: Mapping[str, str] = {"secure": "RunPod Secure Cloud", "community": "RunPod Community Cloud"}


def query(spec: DeploymentSpec, budget_s: float = market.LIVE_BUDGET_S) -> Market:
    """RunPod's offers: live within `budget_s` seconds, else dated, with a note that says so."""
    return market.ask({"runpod": live}, spec, budget_s=budget_s)["runpod"]


def live(spec: DeploymentSpec, seconds: float) -> Iterable[Offer]:
    """RunPod's offers now, pods and serverless.

    Raises:
        PlatformError: no key is set, or RunPod does not answer as its contract says.
    """
    cloud = connect(hurry, timeout_s=seconds)
    return tuple(offers_of(*ask(cloud, spec), spec, datetime.now(UTC).date()))


def ask(cloud: RunPod, spec: DeploymentSpec) -> tuple[list[GpuType], list[GpuType], list[GpuType]]:
    """The catalogue with the stock of pods in either cloud, and of serverless workers."""
    count = str(spec.hardware.gpu_count)
    with ThreadPoolExecutor(max_workers=3) as pool:
        secure = pool.submit(cloud.gpu_types, "POD", count=count, cloud="SECURE")
        community = pool.submit(cloud.gpu_types, "POD", count=count, cloud="COMMUNITY")
        serverless = pool.submit(cloud.gpu_types, "SERVERLESS", count=count)
        return secure.result(), community.result(), serverless.result()


def offers_of(
    secure: Sequence[GpuType],
    community: Sequence[GpuType],
    serverless: Sequence[GpuType],
    spec: DeploymentSpec,
    today: date,
) -> Iterator[Offer]:
    """Offers of three catalogue answers. A GPU that our own catalogue doesn't know is left out: nothing is known of
    what fits on it."""
    for row in secure:
        if row.secure and row.price.secure:
            yield from _pod(row, "secure", row.price.secure, spec, today)
    for row in community:
        if row.community and row.price.community:
            yield from _pod(row, "community", row.price.community, spec, today)
    for row in serverless:
        if row.pool and row.price.serverless:
            yield from _worker(row, row.pool, row.price.serverless, spec, today)


def dated_rate(kind: Literal["pod", "serverless"], meter: str, quantity: Decimal | None = None) -> Rate:
    """The rate of a meter that the catalogue lacks (`disk`, `network volume`), from the dated prices.

    Raises:
        PlatformError: the user's own price file can't be read.
    """
    for price in market.prices():
        if (price.platform, price.kind, price.meter) == ("runpod", kind, meter):
            return rate_of(price, quantity)
    return Rate(meter, "GB-Months", None, "snapshot", "", None, quantity=quantity)


def volume_rates(kind: Literal["pod", "serverless"], size_gb: int) -> tuple[Rate, ...]:
    """The rates of a network volume of that size: what is above 1 TB costs less.

    Raises:
        PlatformError: the user's own price file can't be read.
    """
    above = max(0, size_gb - _TB)
    first = dated_rate(kind, "network volume", Decimal(size_gb - above))
    return (first, dated_rate(kind, "network volume above 1 TB", Decimal(above))) if above else (first,)


def volume_hourly_usd(size_gb: int) -> Decimal | None:
    """What a network volume of that size costs an hour in US dollars; None when a price isn't known."""
    costs = [None if r.unit_price is None else r.unit_price * (r.quantity or 0) for r in volume_rates("pod", size_gb)]
    known = [cost for cost in costs if cost is not None]
    return sum(known, Decimal(0)) / HOURS_PER_MONTH if len(known) == len(costs) else None


def rented(pod: Pod) -> Offer:
    """What a pod is and bills, in the terms of offers. What RunPod bills is one price, of GPUs and disk together."""
    gpu = pod.gpu or PodGpu(id="")
    disk = dated_rate("pod", "disk")
    disk_usd = (disk.unit_price or Decimal(0)) * (pod.disk or 0) / HOURS_PER_MONTH
    each = ((pod.cost - disk_usd) / gpu.count).quantize(_CENT_OF_A_CENT)
    since = date.fromisoformat(pod.created_at[:10]) if pod.created_at else None
    rate = Rate("GPU", "Hours", each, "live", CATALOGUE_URL, since, "as billed", quantity=Decimal(gpu.count))
    tier: Tier = "secure" if pod.cloud == "SECURE" else "community"
    try:
        name = gpu_on("runpod", gpu.id).name
    except UnknownGpu:
        name = ""
    where = place("runpod", pod.data_center_id or "")
    return Offer(
        platform="runpod",
        kind="pod",
        sku=gpu.id,
        gpu=name,
        gpu_count=gpu.count,
        region=pod.data_center_id or "",
        country=where.country if where else "",
        tier=tier,
        spot=False,
        rates=(rate, disk),
        evidence=_EVIDENCE[tier],
    )


def _pod(
    row: GpuType, tier: Literal["secure", "community"], each: Decimal, spec: DeploymentSpec, today: date
) -> Iterator[Offer]:
    count = spec.hardware.gpu_count
    gpu_rate = Rate("GPU", "Hours", each, "live", CATALOGUE_URL, today, quantity=Decimal(count))
    most = row.max_count.secure if tier == "secure" else row.max_count.community
    if most is None or most >= count:
        yield from _offer(row, "pod", row.id, tier, (gpu_rate, dated_rate("pod", "disk")), spec)


def _worker(row: GpuType, pool: str, each: Decimal, spec: DeploymentSpec, today: date) -> Iterator[Offer]:
    per_second = Rate(
        "GPU",
        "Seconds",
        each / 3600,
        "live",
        CATALOGUE_URL,
        today,
        "start, answers and idle time-out are billed",
        bills="awake",
        quantity=Decimal(spec.hardware.gpu_count),
    )
    yield from _offer(row, "serverless", pool, "secure", (per_second, dated_rate("serverless", "disk")), spec)


def _offer(
    row: GpuType,
    kind: Literal["pod", "serverless"],
    sku: str,
    tier: Tier,
    rates: tuple[Rate, ...],
    spec: DeploymentSpec,
) -> Iterator[Offer]:
    try:
        card = gpu_on("runpod", row.id)
    except UnknownGpu:
        return
    yield Offer(
        platform="runpod",
        kind=kind,
        sku=sku,
        gpu=card.name,
        gpu_count=spec.hardware.gpu_count,
        region="",
        country="",
        tier=tier,
        spot=False,
        rates=rates,
        availability=stock(row, spec),
        evidence=_EVIDENCE[tier],
    )


def stock(row: GpuType, spec: DeploymentSpec) -> Literal["high", "medium", "low", "none", ""]:
    """The best stock among the places that the spec allows; "" when RunPod said nothing."""
    wanted = set(regions_on("runpod", spec.placement.regions))
    if row.data_centers and wanted:
        there = [place.availability for place in row.data_centers if place.id in wanted]
        best = max(there, key=_LEVELS.index, default="NONE")
    elif row.availability is not None:
        best = row.availability
    else:
        return ""
    return cast(Literal["high", "medium", "low", "none"], best.lower())


def hurry(seconds: float) -> None:
    """Instead of waiting for a rate limit: a price that comes later than its budget is of no use.

    Raises:
        PlatformError: always.
    """
    raise PlatformError(f"RunPod asks to wait {seconds:.0f} s (rate limit)")
