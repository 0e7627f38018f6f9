"""What holds for every offer, spec and set of assumptions."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.cost import Assumptions, Estimator, _split, estimate, sustained_hours
from serving.lines import Estimate, Span
from serving.offers import Bills, Kind, Offer, Rate, Tier, Unit
from serving.spec import DeploymentSpec

NEARLY = Decimal("1e-18")

prices = st.decimals(0, 100, places=8, allow_nan=False, allow_infinity=False)
counts = st.none() | st.decimals(0, 512, places=2, allow_nan=False, allow_infinity=False)
UNITS: dict[str, tuple[Unit, ...]] = {"download": ("GB",), "upload": ("GB",)}


@st.composite
def rates(draw: st.DrawFn, unknown: bool = True) -> Rate:
    bills = draw(st.sampled_from(get_args(Bills)))
    return Rate(
        meter=draw(st.sampled_from(["GPU", "vCPU", "memory", "disk", "traffic"])),
        unit=draw(st.sampled_from(UNITS.get(bills, ("Hours", "Seconds", "GB-Months")))),
        unit_price=draw(st.none() | prices) if unknown else draw(prices),
        source="snapshot",
        url="",
        as_of=date(2026, 11, 1),
        bills=bills,
        quantity=draw(counts),
        lowest=draw(st.none() | prices),
        highest=draw(st.none() | prices),
        discount=draw(st.sampled_from([Decimal(0), Decimal("0.25"), Decimal(1)])),
        sustained_use=draw(st.booleans()),
        month_hours=draw(st.sampled_from([720, 730])),
    )


def offers(unknown: bool = True) -> st.SearchStrategy[Offer]:
    return st.builds(
        Offer,
        platform=st.just("somewhere"),
        kind=st.sampled_from(get_args(Kind)),
        sku=st.just("a-gpu"),
        gpu=st.just("L4"),
        gpu_count=st.just(1),
        region=st.just(""),
        country=st.just(""),
        tier=st.sampled_from(get_args(Tier)),
        spot=st.booleans(),
        rates=st.lists(rates(unknown), max_size=6).map(tuple),
    )


@st.composite
def specs(draw: st.DrawFn) -> DeploymentSpec:
    """At most one worker that sleeps, so that no replay makes an example slow; several are tested below."""
    least = draw(st.integers(0, 3))
    usage: dict[str, object] = {"input_tokens": draw(st.integers(1, 8000)), "output_tokens": draw(st.integers(1, 2000))}
    requests = draw(st.none() | st.integers(0, 1_000_000))
    return DeploymentSpec.model_validate(
        {
            "hardware": {"disk_gb": draw(st.integers(8, 500))},
            "scaling": {"min": least, "max": max(1, least), "idle_timeout_s": draw(st.integers(1, 3600))},
            "usage": usage | ({} if requests is None else {"requests_per_day": requests}),
        }
    )


assumptions = st.builds(
    Assumptions,
    tokens_per_s=st.integers(1, 500).map(Decimal),
    boot_s=st.integers(0, 600).map(Decimal),
    concurrency=st.integers(1, 64),
    creates=st.integers(0, 5).map(Decimal),
    hours=st.integers(1, 744).map(Decimal),
)


def close(one: Decimal, other: Decimal) -> bool:
    return abs(one - other) <= NEARLY * max(1, abs(one))


def same(one: Span, other: Span) -> bool:
    return close(one.low, other.low) and close(one.expected, other.expected) and close(one.high, other.high)


@given(specs(), offers(), assumptions)
def test_no_amount_is_negative_and_low_is_below_expected_below_high(
    spec: DeploymentSpec, offer: Offer, assumed: Assumptions
) -> None:
    found = estimate(spec, offer, assumed)
    for span in (found.span, *(line.span for line in found.lines)):
        assert span is None or 0 <= span.low <= span.expected <= span.high
    amounts = (found.monthly, found.hourly, found.listed, found.baseline, found.usage, found.peak_hourly)
    assert min(amounts) >= -NEARLY


@given(specs(), offers(), assumptions)
def test_list_cost_is_list_unit_price_times_pricing_quantity_on_every_line(
    spec: DeploymentSpec, offer: Offer, assumed: Assumptions
) -> None:
    for line in estimate(spec, offer, assumed).lines:
        row = line.focus()
        price, quantity, contracted = row["ListUnitPrice"], row["PricingQuantity"], row["ContractedUnitPrice"]
        if price is None or quantity is None or contracted is None:
            assert row["ListCost"] is None
            assert row["ContractedCost"] is None
            continue
        for unit, cost in ((Decimal(price), row["ListCost"]), (Decimal(contracted), row["ContractedCost"])):
            # Each of the three is written to ten places.
            off = Decimal("5e-11") * (2 + unit + Decimal(quantity))
            assert abs(Decimal(cost or "nan") - unit * Decimal(quantity)) <= off
        assert Decimal(contracted) <= Decimal(price)


@given(specs(), offers(), assumptions)
def test_totals_without_lines_are_those_of_the_lines(spec: DeploymentSpec, offer: Offer, assumed: Assumptions) -> None:
    found = estimate(spec, offer, assumed)
    span, incomplete, open_use = Estimator(spec, assumed).totals(offer)
    assert same(span, found.span)
    assert (incomplete, open_use) == (found.incomplete, found.open_use)


@given(specs(), offers(), assumptions, st.randoms(use_true_random=False))
def test_the_order_of_the_rates_changes_nothing(
    spec: DeploymentSpec, offer: Offer, assumed: Assumptions, random: object
) -> None:
    shuffled = list(offer.rates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = estimate(spec, offer, assumed), estimate(spec, replace(offer, rates=tuple(shuffled)), assumed)

    def lines(found: Estimate) -> list[str]:
        return sorted(json.dumps(line.focus()) for line in found.lines)

    assert same(one.span, other.span)
    assert lines(one) == lines(other)


@given(specs(), offers(unknown=False), assumptions, st.integers(1, 12))
def test_what_runs_whatever_the_traffic_is_linear_in_hours(
    spec: DeploymentSpec, offer: Offer, assumed: Assumptions, factor: int
) -> None:
    """All but Google's discount, which depends on the share of the month, and what is pulled at each create."""
    linear = tuple(replace(rate, sustained_use=False) for rate in offer.rates if rate.bills in ("running", "kept"))
    flat = replace(offer, rates=linear)
    longer = replace(assumed, hours=assumed.hours * factor)
    one, many = estimate(spec, flat, assumed), estimate(spec, flat, longer)
    assert close(many.monthly, one.monthly * factor)
    assert close(many.hourly, one.hourly)


@given(specs(), assumptions, st.integers(1, 12), rates(unknown=False), st.sampled_from(["download", "upload"]))
def test_traffic_is_linear_in_hours_beside_what_each_create_pulls(
    spec: DeploymentSpec, assumed: Assumptions, factor: int, rate: Rate, bills: Bills
) -> None:
    machine = a_machine(replace(rate, bills=bills, unit="GB", quantity=None, sustained_use=False))

    def moved(hours: Decimal) -> Decimal:
        lines = estimate(spec, machine, replace(assumed, hours=hours)).lines
        return sum((line.monthly or Decimal(0) for line in lines if line.phase != "at create"), Decimal(0))

    assert close(moved(assumed.hours * factor), moved(assumed.hours) * factor)


@given(specs(), offers(unknown=False), assumptions, st.integers(1, 9))
def test_cost_is_linear_in_prices(spec: DeploymentSpec, offer: Offer, assumed: Assumptions, factor: int) -> None:
    def dearer(price: Decimal | None) -> Decimal | None:
        return None if price is None else price * factor

    raised = tuple(
        replace(rate, unit_price=dearer(rate.unit_price), lowest=dearer(rate.lowest), highest=dearer(rate.highest))
        for rate in offer.rates
    )
    one, other = estimate(spec, offer, assumed).span, estimate(spec, replace(offer, rates=raised), assumed).span
    assert same(other, Span(one.low * factor, one.expected * factor, one.high * factor))


@given(specs(), offers(unknown=False), assumptions, rates())
def test_an_unknown_price_is_never_zero_and_marks_the_total(
    spec: DeploymentSpec, offer: Offer, assumed: Assumptions, rate: Rate
) -> None:
    unknown = replace(rate, unit_price=None, bills="kept", unit="Hours")
    found = estimate(spec, replace(offer, rates=(*offer.rates, unknown)), assumed)
    assert found.incomplete
    assert same(found.span, estimate(spec, offer, assumed).span)
    line = found.lines[-1]
    output = line.focus()
    assert [output[key] for key in ("ListUnitPrice", "ListCost", "ContractedCost")] == [None] * 3
    assert line.description.endswith("price not found")
    assert found.as_output()["incomplete"] is True


@given(specs(), rates(unknown=False), assumptions, st.sampled_from(["serverless", "app"]))
def test_an_unknown_use_says_that_the_line_depends_on_it(
    spec: DeploymentSpec, rate: Rate, assumed: Assumptions, kind: Kind
) -> None:
    scaling = spec.scaling.model_copy(update={"max": spec.scaling.min + 1})
    silent = spec.model_copy(
        update={"scaling": scaling, "usage": spec.usage.model_copy(update={"requests_per_day": None})}
    )
    worker = replace(rate, bills="awake", unit="Seconds")
    found = estimate(silent, replace(a_machine(worker), kind=kind), assumed)
    line = found.lines[-1]
    assert found.open_use
    assert line.monthly is None
    assert line.focus()["ContractedCost"] is None
    assert "depends on usage: $" in line.description
    assert found.as_output()["depends_on_usage"] is True


def a_machine(rate: Rate) -> Offer:
    return Offer(
        platform="somewhere",
        kind="pod",
        sku="a-gpu",
        gpu="L4",
        gpu_count=1,
        region="",
        country="",
        tier="secure",
        spot=False,
        rates=(rate,),
    )


@settings(max_examples=15)
@given(
    offers(),
    st.integers(0, 2),
    st.integers(1, 4),
    st.integers(1, 2_000_000),
    st.integers(1, 3600),
    st.sampled_from(["serverless", "app"]),
)
def test_all_of_that_holds_for_several_workers(
    offer: Offer, least: int, more: int, requests: int, idle_s: int, kind: Kind
) -> None:
    spec = DeploymentSpec.model_validate(
        {
            "scaling": {"min": least, "max": least + more, "idle_timeout_s": idle_s},
            "usage": {"requests_per_day": requests},
        }
    )
    offer = replace(offer, kind=kind)
    found = estimate(spec, offer)
    for span in (found.span, *(line.span for line in found.lines)):
        assert span is None or 0 <= span.low <= span.expected <= span.high
    span, incomplete, open_use = Estimator(spec, Assumptions()).totals(offer)
    assert same(span, found.span)
    assert (incomplete, open_use) == (found.incomplete, found.open_use)


@given(
    st.lists(st.integers(0, 10_000), min_size=3, max_size=3).map(sorted), st.integers(0, 10_000), st.integers(0, 10_000)
)
def test_phases_are_whole_seconds_that_add_up_and_grow_with_traffic(ends: list[int], idle: int, starting: int) -> None:
    whole = Span(*map(Decimal, ends))
    phases = _split(whole, Decimal(idle), Decimal(starting))
    assert Span.sum(phases) == whole
    for phase in phases:
        assert 0 <= phase.low <= phase.expected <= phase.high
        assert all(second == int(second) for second in (phase.low, phase.expected, phase.high))


@given(st.decimals(0, 730, places=2), st.decimals(0, 730, places=2))
def test_sustained_use_never_bills_less_for_more_hours_and_never_over_the_hours(one: Decimal, other: Decimal) -> None:
    low, high = sorted((one, other))
    assert sustained_hours(low) <= sustained_hours(high) <= high
    assert sustained_hours(high) >= high * Decimal("0.7")
