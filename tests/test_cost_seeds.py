"""Four earlier studies' figures: sums that hold must come out as printed, mistakes must not.

Studies: RP (RunPod, 2026-01-11), VR (Vast.ai against RunPod, 2026-01-11), GC (a Google Cloud VM, 2026-01-10), MO
(Modal, 2026-01-16). Break-even against APIs is in `test_breakeven.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any

import pytest

from serving.cost import Assumptions, estimate
from serving.gpus import UnknownGpu, gpu, gpu_on
from serving.lines import Estimate, cents
from serving.offers import Offer, Rate
from serving.prices import snapshot
from serving.snapshot import snapshot_offers
from tests.offers import hourly, offer, spec


def hours(price: str, quantity: str = "1", **changes: Any) -> Rate:
    return hourly(price, quantity=Decimal(quantity), **changes)


def gb(price: str, quantity: str, **changes: Any) -> Rate:
    return hourly(price, meter="disk", unit="GB-Months", quantity=Decimal(quantity), bills="kept", **changes)


def month(price: str, hours_in_month: int) -> Rate:
    """What a study gives as dollars a month."""
    return hourly(price, meter="VM", unit="GB-Months", quantity=Decimal(1), month_hours=hours_in_month)


def second(price: str, quantity: str = "1") -> Rate:
    return hourly(price, unit="Seconds", quantity=Decimal(quantity))


def in_hours(count: str, *rates: Rate) -> Estimate:
    return estimate(spec(), offer(rates=rates), Assumptions(hours=Decimal(count)))


@dataclass(frozen=True)
class Printed:
    """A study's figure, the hours it was for, and what it is to the cent."""

    id: str
    hours: str
    rates: tuple[Rate, ...]
    exact: str
    printed: str


ARITHMETIC = [
    Printed("RP RTX 4000 Ada, low", "730", (hours("0.34"),), "248.20", "248.20"),
    Printed("RP RTX 4000 Ada, high", "730", (hours("0.76"),), "554.80", "554.80"),
    Printed("RP network volume", "730", (gb("0.07", "2.5"),), "0.18", "0.18"),
    Printed("RP total, low", "730", (hours("0.34"), gb("0.07", "2.5")), "248.38", "248"),
    Printed("RP total, high", "730", (hours("0.76"), gb("0.07", "2.5")), "554.98", "555"),
    Printed("RP half of the time, low", "365", (hours("0.34"),), "124.10", "124"),
    Printed("RP half of the time, high", "365", (hours("0.76"),), "277.40", "277"),
    Printed("RP 80 % of the time, low", "584", (hours("0.34"),), "198.56", "198"),
    Printed("RP 80 % of the time, high", "584", (hours("0.76"),), "443.84", "444"),
    Printed("RP two active workers", "730", (hours("0.50", "2"),), "730.00", "730"),
    Printed("RP three flex workers a fifth of the time", "146", (hours("0.70", "3"),), "306.60", "306"),
    Printed("RP two active and a burst", "730", (hours("0.50", "2"), hours("0.70", "0.6")), "1036.60", "1036"),
    Printed("RP five flex workers 80 % of the time", "584", (hours("0.70", "5"),), "2044.00", "2044"),
    Printed("VR 3090 Vast.ai community", "730", (hours("0.11"),), "80.30", "80.30"),
    Printed("VR 3090 Vast.ai data centre", "730", (hours("0.22"),), "160.60", "160.60"),
    Printed("VR 4090 Vast.ai community", "730", (hours("0.16"),), "116.80", "116.80"),
    Printed("VR 4090 Vast.ai data centre", "730", (hours("0.31"),), "226.30", "226.30"),
    Printed("VR 4090 RunPod community", "730", (hours("0.34"),), "248.20", "248.20"),
    Printed("VR 3090 RunPod secure", "730", (hours("0.30"),), "219.00", "219"),
    Printed("VR Vast.ai on a budget", "730", (hours("0.15"),), "109.50", "109.50"),
    Printed("VR an hour of a flex second price", "1", (second("0.0011"),), "3.96", "3.96"),
    Printed("VR an hour of an active second price", "1", (second("0.00077"),), "2.77", "2.77"),
    Printed("VR storage by five minutes", "730", (hours("0.000011574", "12"),), "0.10", "0.10"),
    Printed("GC T4", "720", (hours("0.35"),), "252.00", "252"),
    Printed("GC L4", "720", (hours("0.62"),), "446.40", "446"),
    Printed("GC A100 40 GB", "720", (hours("1.15"),), "828.00", "828"),
    Printed("GC A100 80 GB", "720", (hours("1.57"),), "1130.40", "1130"),
    Printed("GC T4, one year", "720", (hours("0.22"),), "158.40", "158"),
    Printed("GC T4, three years", "720", (hours("0.16"),), "115.20", "115"),
    Printed("GC L4, one year", "720", (hours("0.39"),), "280.80", "281"),
    Printed("GC L4, three years", "720", (hours("0.28"),), "201.60", "201"),
    Printed("GC A100 40 GB, one year", "720", (hours("0.72"),), "518.40", "518"),
    Printed("GC A100 40 GB, three years", "720", (hours("0.52"),), "374.40", "374"),
    Printed("GC A100 80 GB, one year", "720", (hours("0.99"),), "712.80", "713"),
    Printed("GC A100 80 GB, three years", "720", (hours("0.71"),), "511.20", "511"),
    Printed("GC T4 spot, low", "730", (hours("0.10"),), "73.00", "73"),
    Printed("GC T4 spot, high", "720", (hours("0.14"),), "100.80", "100"),
    Printed("GC L4 spot, low", "720", (hours("0.18"),), "129.60", "130"),
    Printed("GC L4 spot, high", "720", (hours("0.25"),), "180.00", "180"),
    Printed("GC A100 40 GB spot, low", "720", (hours("0.35"),), "252.00", "252"),
    Printed("GC A100 40 GB spot, high", "720", (hours("0.46"),), "331.20", "331"),
    Printed("GC A100 80 GB spot, high", "720", (hours("0.63"),), "453.60", "454"),
    Printed(
        "GC A: T4 with its VM and disk", "720", (hours("0.35"), month("120", 720), month("17", 720)), "389.00", "389"
    ),
    Printed("GC A: three years", "720", (hours("0.16"), month("120", 720), month("17", 720)), "252.20", "252"),
    Printed("GC A: spot, low", "730", (hours("0.10"), month("120", 730), month("17", 730)), "210.00", "210"),
    Printed("GC A: spot, high", "720", (hours("0.14"), month("120", 720), month("17", 720)), "237.80", "237"),
    Printed(
        "GC B: L4 with its VM and disk", "720", (hours("0.62"), month("240", 720), month("17", 720)), "703.40", "703"
    ),
    Printed("GC B: three years", "720", (hours("0.28"), month("240", 720), month("17", 720)), "458.60", "458"),
    Printed("GC D: A100 80 GB on RunPod", "730", (hours("1.99"), month("20", 730)), "1472.70", "1473"),
    Printed("GC D: A100 80 GB on GCP", "720", (hours("1.57"), month("240", 720), month("17", 720)), "1387.40", "1387"),
    Printed("GC E: Vast.ai, 120 hours", "120", (hours("0.30"),), "36.00", "36"),
    Printed("GC E: Vast.ai, 240 hours", "240", (hours("0.30"),), "72.00", "72"),
    Printed("GC E: Vast.ai, 160 hours", "160", (hours("0.30"),), "48.00", "48"),
    Printed("GC E: Vast.ai, all month", "730", (hours("0.30"),), "219.00", "219"),
    Printed("GC Vast.ai 4090, low", "730", (hours("0.24"),), "175.20", "175"),
    Printed("GC Vast.ai 4090, high", "730", (hours("0.60"),), "438.00", "438"),
    Printed("GC Vast.ai A100, low", "730", (hours("0.50"),), "365.00", "365"),
    Printed("GC Vast.ai A100, high", "730", (hours("1.20"),), "876.00", "876"),
]


def reads(amount: Decimal, printed: str) -> bool:
    """Whether a figure is this amount, rounded or cut off."""
    figure = Decimal(printed)
    return figure in (amount.quantize(figure, ROUND_HALF_UP), amount.quantize(figure, ROUND_DOWN))


@pytest.mark.parametrize("case", ARITHMETIC, ids=lambda case: case.id)
def test_sums_that_hold_come_out_as_printed_with_their_documents_month(case: Printed) -> None:
    amount = in_hours(case.hours, *case.rates).monthly
    assert str(cents(amount)) == case.exact
    assert reads(amount, case.printed)


# --- figures that must not come out


def n1_with_t4(**gpu_changes: Any) -> Estimate:
    rates = (
        hours("0.35", sustained_use=True, **gpu_changes),
        hours("0.031611", "4", meter="vCPU", sustained_use=True),
        hours("0.004237", "15", meter="memory", sustained_use=True),
        gb("0.17", "100"),
    )
    return estimate(spec(), offer("gcp", rates=rates, kind="vm"))


def a10_on_modal(*more: Rate) -> Estimate:
    return in_hours("730", second("0.000306"), *more)


def flex_half_of_the_time() -> Decimal:
    """RunPod's 16 GB class at the flex price, in use half of the month."""
    return in_hours("365", second("0.00016")).monthly


@dataclass(frozen=True)
class Wrong:
    """A study's figure, why it is wrong, and what it is instead."""

    id: str
    why: str
    printed: str
    ours: Callable[[], Decimal]
    right: str


COUNTER_EXAMPLES = [
    Wrong("GC A", "leaves out sustained use", "389", lambda: n1_with_t4().monthly, "292.94"),
    Wrong("GC A, list", "takes 120 for the VM and 720 hours", "389", lambda: n1_with_t4().listed, "411.20"),
    Wrong(
        "GC n1-standard-4",
        "is four cores and 15 GB at 0.19 an hour",
        "120",
        lambda: in_hours("730", hours("0.031611", "4"), hours("0.004237", "15")).monthly,
        "138.70",
    ),
    Wrong("GC T4", "has 720 hours beside rows of 730", "252", lambda: in_hours("730", hours("0.35")).monthly, "255.50"),
    Wrong("GC L4", "has 720 hours", "446", lambda: in_hours("730", hours("0.62")).monthly, "452.60"),
    Wrong("GC A100 40 GB", "has 720 hours", "828", lambda: in_hours("730", hours("1.15")).monthly, "839.50"),
    Wrong("GC A100 80 GB", "has 720 hours", "1130", lambda: in_hours("730", hours("1.57")).monthly, "1146.10"),
    Wrong("GC T4 spot", "is half of on demand", "73", lambda: in_hours("730", hours("0.175")).monthly, "127.75"),
    Wrong("GC T4 spot, high", "likewise", "100", lambda: in_hours("730", hours("0.175")).monthly, "127.75"),
    Wrong("GC a2-highgpu-1g", "is 3.67 an hour", "828", lambda: in_hours("730", hours("3.673385")).monthly, "2681.57"),
    Wrong("GC A100 80 GB spot", "misprints 338.40", "339", lambda: in_hours("720", hours("0.47")).monthly, "338.40"),
    Wrong("GC two weeks", "is 336 hours of 0.34", "120", lambda: in_hours("336", hours("0.34")).monthly, "114.24"),
    Wrong(
        "L4 counted twice",
        "g2-standard-4 has its L4 in the price; another tool adds it at 0.7 x 0.56004",
        "802.17",
        lambda: in_hours("730", hours("0.706832", meter="machine")).monthly,
        "515.99",
    ),
    Wrong("RP flex at the active price", "takes a pod's price", "124", flex_half_of_the_time, "210.24"),
    Wrong(
        "RP 5 GB volume",
        "prices 2.5 GB and creates 5",
        "0.18",
        lambda: in_hours("730", gb("0.07", "5")).monthly,
        "0.35",
    ),
    Wrong(
        "RP two active workers for availability",
        "recommends two and prices one",
        "248",
        lambda: estimate(spec(scaling={"min": 2}), offer(price="0.34")).monthly,
        "496.40",
    ),
    Wrong("MO A10", "takes 0.40 an hour", "292", lambda: a10_on_modal().monthly, "804.17"),
    Wrong(
        "MO A10 with cores and memory",
        "takes 0.40 an hour for all",
        "292",
        lambda: a10_on_modal(second("0.0000131", "4"), second("0.00000222", "16")).monthly,
        "1035.22",
    ),
    Wrong("MO hours of a credit of 5 dollars", "takes 0.40 an hour", "12.5", lambda: 5 / a10_on_modal().hourly, "4.54"),
    Wrong(
        "VR serverless 4090",
        "is 3.5 times the platform's own price",
        "3.96",
        lambda: in_hours("1", second("0.00031")).monthly,
        "1.12",
    ),
]


@pytest.mark.parametrize("case", COUNTER_EXAMPLES, ids=lambda case: f"{case.id} {case.why}")
def test_mistakes_do_not_come_out(case: Wrong) -> None:
    amount = case.ours()
    assert str(cents(amount)) == case.right
    assert not reads(amount, case.printed)


SAVINGS = [
    ("VR 3090 on Vast.ai", hours("0.11"), hours("0.22"), "50.0"),
    ("VR 4090 on Vast.ai", hours("0.16"), hours("0.34"), "52.9"),
    ("VR 4090 on Vast.ai, data centre", hours("0.31"), hours("0.34"), "8.8"),
]


@pytest.mark.parametrize(
    ("id", "cheap", "dear", "percent"), SAVINGS, ids=lambda value: value if type(value) is str else ""
)
def test_savings_said_to_be_20_to_30_percent_are_others(id: str, cheap: Rate, dear: Rate, percent: str) -> None:
    saving = 100 * (1 - in_hours("730", cheap).monthly / in_hours("730", dear).monthly)
    assert f"{saving:.1f}" == percent
    assert not 20 <= saving <= 30


def test_active_workers_and_a_burst_save_22_percent_of_the_same_hours_and_not_half() -> None:
    mixed = in_hours("730", hours("0.50", "2"), hours("0.70", "0.6")).monthly
    all_flex = in_hours("730", hours("0.70", "2.6")).monthly
    assert str(cents(all_flex)) == "1328.60"
    assert round(1 - mixed / all_flex, 2) == Decimal("0.22")


# --- what the project's own prices say of the same things


def sold(platform: str, gpu_name: str, **terms: Any) -> list[Offer]:
    found = [one for one in snapshot_offers(snapshot(), platform) if one.gpu == gpu_name]
    return [one for one in found if all(getattr(one, name) == value for name, value in terms.items())]


def test_runpod_has_no_t4_at_any_price() -> None:
    with pytest.raises(UnknownGpu):
        gpu_on("runpod", "T4")
    assert "runpod" not in gpu("T4").platform_names
    assert sold("runpod", "T4") == []


def test_an_l4_comes_with_its_machine_and_is_never_attached_nor_billed_beside_it() -> None:
    offers = sold("gcp", "L4")
    assert offers
    for found in offers:
        assert found.sku.startswith("g2-")
        assert "GPU" not in {rate.meter for rate in found.rates}
        assert not any(rate.sustained_use for rate in found.rates)


def test_a_t4_on_google_is_cheaper_for_a_whole_month_than_its_list_price() -> None:
    for found in sold("gcp", "T4", spot=False):
        cost = estimate(spec(), found)
        assert cost.monthly < cost.listed


def test_spot_on_google_discounts_the_machine_as_well_and_is_no_further_discounted() -> None:
    (spot, *_), (demand, *_) = (sold("gcp", "T4", spot=spot, sku="n1-standard-4") for spot in (True, False))
    prices = [{rate.meter: rate.unit_price for rate in one.rates} for one in (spot, demand)]
    for meter in ("GPU", "vCPU", "memory"):
        cheap, dear = (price[meter] for price in prices)
        assert cheap is not None
        assert dear is not None
        assert cheap < dear
    assert estimate(spec(), spot).listed == estimate(spec(), spot).monthly


def test_an_a10_on_modal_is_not_040_an_hour() -> None:
    offers = sold("modal", "A10")
    assert offers
    for found in offers:
        always = estimate(spec(scaling={"min": 1, "max": 1}), found)
        assert always.hourly > Decimal("1.1")
        assert {rate.meter for rate in found.rates} > {"GPU"}


def test_a_3090_without_a_serverless_price_of_its_own_is_not_priced_like_a_pod() -> None:
    pods = {estimate(spec(), one).hourly for one in sold("runpod", "RTX 3090", kind="pod")}
    workers = {estimate(spec(scaling={"min": 1}), one).hourly for one in sold("runpod", "RTX 3090", kind="serverless")}
    assert workers
    assert min(workers) > max(pods)
