"""What `vllm-anywhere breakeven` shows: tables and a chart for people, plain data for programs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from ops.charts import Axes, Series, line_chart, line_chart_svg
from serving.apis import ApiModel
from serving.breakeven import (
    OBSERVED_ON,
    OBSERVED_TOKENS_PER_S,
    Against,
    Breakeven,
    Crossing,
    SelfHost,
    most_requests,
)
from serving.gpus import gpu
from serving.lines import cents
from serving.report import dollars, offer_name

_CHART_WIDTH = 100
_CHART_HEIGHT = 22
_POINTS_A_DECADE = 24
_DRAWN_APIS = 3


def report(found: Breakeven) -> list[Table | Text | Chart]:
    """Everything that people see."""
    usage = found.spec.usage
    asked = f"A request: {usage.input_tokens:,} prompt tokens"
    if found.terms.cached_tokens:
        asked += f" ({found.terms.cached_tokens:,} the same in every request)"
    asked += f", {usage.output_tokens:,} answer tokens. A month has 730 hours"
    if found.terms.maintenance:
        asked += f"; {dollars(found.terms.maintenance)} of self-hosting is maintenance"
    lines = [*_capacity(found), *_declared(found), *_switch(found)]
    return [
        Text(f"{asked}."),
        _host_table(found),
        _api_table(found),
        Text("\n".join(lines)),
        Text(""),
        Chart(found),
        Text("".join(_drawn_apis(found))),
        Text("\n".join(notes(found))),
    ]


@dataclass(frozen=True)
class Chart:
    """The chart as something that fills the console it is printed on."""

    found: Breakeven

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        series, axes = drawn(self.found)
        yield Text(line_chart(series, axes, min(options.max_width, _CHART_WIDTH), _CHART_HEIGHT))


def svg(found: Breakeven) -> str:
    """The chart for a page."""
    series, axes = drawn(found)
    above = "; ".join(_sentence(found, against) for against in _in_chart(found))
    hosts = "; ".join(f"{host.style}: {_host_cost(found, host)}" for host in found.hosts)
    described = " ".join([f"{hosts}. {above}.", *(line.strip() for line in _drawn_apis(found))])
    return line_chart_svg(series, axes, "Cost a month: closed API or self-hosted", described)


def drawn(found: Breakeven) -> tuple[list[Series], Axes]:
    """The lines and axes of the chart: the cheapest, the dearest and the middle API, and every way of hosting."""
    against = _in_chart(found)
    crossings = [crossing for one in against for crossing in one.crossings if crossing and crossing.requests]
    volumes = [crossing.requests for crossing in crossings] or [max(1, found.most)]
    servers = max((crossing.servers for crossing in crossings), default=1)
    if found.declared and found.declared.requests:
        volumes.append(found.declared.requests)
        servers = max(servers, min(found.declared.servers, found.terms.max_servers))
    low = 10 ** math.floor(math.log10(max(1, min(volumes) / 4)))
    most = most_requests(servers, found.spec.usage.output_tokens, found.terms)
    high = max(10 * low, min(10 ** math.ceil(math.log10(max(volumes) * 2)), most))
    series = [_line(one.api.name, low, high, partial(found.api_monthly, one.api)) for one in against]
    hosting = [_line(host.style, low, high, partial(found.monthly, host)) for host in found.hosts]
    dearest = max((y for line in hosting for _, y in line.points), default=1)
    top = 10.0 ** math.ceil(math.log10(max(1, dearest) * 1.2))
    marks = tuple((float(crossing.requests), float(crossing.monthly)) for crossing in crossings)
    axes = Axes(
        (float(low), float(high)),
        (top / 1000, top),
        "requests a month",
        "US dollars a month",
        "log",
        marks,
        "above it, self-hosting costs less",
    )
    return [*series, *hosting], axes


def facts(found: Breakeven) -> dict[str, Any]:
    """The comparison as plain data, money as text."""
    usage, terms, declared, switch = found.spec.usage, found.terms, found.declared, found.switch
    return {
        "request": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_tokens": terms.cached_tokens,
        },
        "assumptions": {
            "tokens_per_s": str(terms.tokens_per_s),
            "peak": str(terms.peak),
            "maintenance_usd": str(terms.maintenance),
            "max_servers": terms.max_servers,
        },
        "hosting": [
            {
                "style": host.style,
                "platform": host.offer.platform if host.offer else None,
                "offer": offer_name(host.offer) if host.offer else None,
                "busy_monthly_usd": str(cents(host.busy)),
                "idle_monthly_usd": str(cents(host.cost(0, 1))),
                "usd_per_million_tokens": str(found.per_million(host).quantize(Decimal("0.0001"))),
            }
            for host in found.hosts
        ],
        "apis": [_api_facts(found, against) for against in found.against],
        "one_server_answers": found.most,
        "declared": {
            "requests_per_month": declared.requests,
            "monthly_usd": {
                name: None if cost is None else str(cents(cost)) for name, cost in _declared_costs(found).items()
            },
            "mean_tokens_per_s": str(declared.mean_tokens_per_s.quantize(Decimal("0.01"))),
            "peak_tokens_per_s": str(declared.peak_tokens_per_s.quantize(Decimal("0.01"))),
            "servers": declared.servers,
        }
        if declared
        else None,
        "always_on_beats_scale_to_zero": {
            "utilisation": str(switch.utilisation.quantize(Decimal("0.001"))),
            "requests_per_month": switch.requests,
        }
        if switch
        else None,
        "notes": notes(found),
    }


def notes(found: Breakeven) -> list[str]:
    """What a reader must know to agree with the numbers."""
    return list(_notes(found))


def _notes(found: Breakeven) -> Iterator[str]:
    terms, usage = found.terms, found.spec.usage
    cached = min(terms.cached_tokens, usage.input_tokens)
    uncached: dict[int | None, list[str]] = {}
    for against in found.against if cached else ():
        if not against.cached:
            uncached.setdefault(against.api.cache_minimum_tokens, []).append(against.api.name)
    for minimum, names in uncached.items():
        begins = f"not cached below {minimum:,} tokens" if minimum is not None else "no known prompt cache"
        yield f"{', '.join(names)}: {begins}, so the {cached:,} that stay the same are priced in full."
    if terms.tokens_per_s == OBSERVED_TOKENS_PER_S:
        yield (
            f"{OBSERVED_TOKENS_PER_S} tokens/s was measured with Qwen3-4B on an {OBSERVED_ON}, 10 requests at a time "
            f"(2026-01-16){_bandwidths(found)}; --tokens-per-s takes your own."
        )
    if any(host.style == "scale to zero" for host in found.hosts):
        yield (
            f"Scale to zero: Poisson arrivals, {terms.assumed.boot_s} billed seconds a start, "
            f"{found.spec.scaling.idle_timeout_s} s idle timeout, {terms.assumed.tokens_per_s} tokens/s an answer."
        )
    if any(crossing is None for against in found.against for crossing in against.crossings):
        yield f"never: not with up to {terms.max_servers} servers, each as busy as peaks allow."
    by_note: dict[str, list[str]] = {}
    for against in found.against:
        if against.api.note:
            by_note.setdefault(against.api.note, []).append(against.api.name)
    for note, names in by_note.items():
        yield f"{', '.join(names)}: {note}."
    yield "Prices are compared, not answers: a small model of your own may need more tries for the same result."


def _bandwidths(found: Breakeven) -> str:
    """How the rented GPUs compare with the one that was measured: decoding is bound by memory bandwidth."""
    there = {gpu(host.offer.gpu) for host in found.hosts if host.offer and host.offer.gpu}
    measured = gpu(OBSERVED_ON)
    others = sorted(there - {measured}, key=lambda one: one.name)
    shares = [f"the {one.name} has {one.bandwidth_gb_s / measured.bandwidth_gb_s:.0%}" for one in others]
    return f"; of its memory bandwidth {' and '.join(shares)}" if shares else ""


def _host_table(found: Breakeven) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("self-hosting", no_wrap=True)
    table.add_column("offer")
    table.add_column("a month", justify="right")
    table.add_column("1M answer tokens, never idle", justify="right", max_width=18)
    for host in found.hosts:
        offer = f"{host.offer.platform}: {offer_name(host.offer)}" if host.offer else "as declared"
        table.add_row(host.style, offer, _host_cost(found, host), dollars(found.per_million(host)))
    return table


def _api_table(found: Breakeven) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("API", no_wrap=True)
    table.add_column("a request", justify="right", no_wrap=True)
    for host in found.hosts:
        table.add_column(f"{host.style} is cheaper above", justify="right", min_width=13, max_width=20)
    table.add_column("price of", min_width=10)
    for against in found.against:
        crossings = [_above(crossing, host) for crossing, host in zip(against.crossings, found.hosts, strict=True)]
        table.add_row(against.api.name, dollars(against.per_request), *crossings, _source(against.api))
    return table


def _above(crossing: Crossing | None, host: SelfHost) -> str:
    """Requests a month; three digits of them where the cost itself is an estimate of time."""
    if crossing is None:
        return "never"
    if not crossing.requests:
        return "always"
    exact = host.style == "always on"
    requests = f"{crossing.requests:,}" if exact else _about(crossing.requests)
    return f"{requests} ({crossing.servers} servers)" if crossing.servers > 1 else requests


def _about(count: int) -> str:
    """A count to three digits."""
    return f"about {round(count, 3 - len(str(count))):,}"


def _host_cost(found: Breakeven, host: SelfHost) -> str:
    """Of one server: asleep all month to never asleep, or always on."""
    least, most = host.cost(0, 1), host.busy + found.terms.maintenance
    return f"{dollars(least)} to {dollars(most)}" if host.style == "scale to zero" else dollars(most)


def _capacity(found: Breakeven) -> Iterator[str]:
    terms = found.terms
    peaks = f"peaks of {terms.peak.normalize():f} times the mean" if terms.peak > 1 else "the same traffic all the time"
    speed = f"{terms.tokens_per_s.normalize():f} tokens/s"
    yield f"One server answers up to {found.most:,} requests a month: {speed}, with {peaks}."


def _declared(found: Breakeven) -> Iterator[str]:
    declared = found.declared
    if declared is None:
        return
    mean, peak = declared.mean_tokens_per_s, declared.peak_tokens_per_s
    servers = "1 server" if declared.servers == 1 else f"{declared.servers:,} servers"
    yield (
        f"The declared {declared.requests:,} requests a month take {mean:,.1f} tokens/s on average, {peak:,.1f} "
        f"at peak: {servers}."
    )
    costs = {name: cost for name, cost in _declared_costs(found).items() if cost is not None}
    yield f"A month of that costs: {', '.join(f'{name} {dollars(cost)}' for name, cost in costs.items())}."
    if len(costs) < len(_declared_costs(found)):
        yield f"Self-hosting is not compared beyond {found.terms.max_servers} servers."


def _declared_costs(found: Breakeven) -> dict[str, Decimal | None]:
    """Way of hosting or API -> US dollars a month at the declared use."""
    requests = found.requests_per_month or 0
    hosts = {host.style: found.monthly(host, requests) for host in found.hosts}
    return {**hosts, **{one.api.name: found.api_monthly(one.api, requests) for one in found.against}}


def _switch(found: Breakeven) -> Iterator[str]:
    switch = found.switch
    if switch is None:
        missing = {"always on", "scale to zero"} - {host.style for host in found.hosts}
        if any(host.offer for host in found.hosts):
            yield f"No {' and no '.join(sorted(missing))} offer fits this spec."
    elif switch.requests is None:
        yield "Scale to zero costs less than always on at any traffic, for as long as one worker is enough."
    elif not switch.requests:
        yield "Always on costs less than scale to zero at any traffic."
    else:
        yield (
            f"Always on costs less than scale to zero above {_about(switch.requests)} requests "
            f"a month, where a worker is up {switch.utilisation:.0%} of the time."
        )


def _line(name: str, low: int, high: int, cost: Callable[[int], Decimal | None]) -> Series:
    """A cost by requests, as far as it is known, at equal steps of a logarithmic axis."""
    steps = math.ceil(math.log10(high / low) * _POINTS_A_DECADE)
    xs = sorted({round(low * (high / low) ** (step / steps)) for step in range(steps + 1)})
    costs = ((x, cost(x)) for x in xs)
    return Series(name, tuple((float(x), float(y)) for x, y in costs if y is not None))


def _in_chart(found: Breakeven) -> list[Against]:
    ordered = sorted(found.against, key=lambda one: (one.per_request, one.api.name))
    if len(ordered) <= _DRAWN_APIS:
        return ordered
    return [ordered[0], ordered[len(ordered) // 2], ordered[-1]]


def _drawn_apis(found: Breakeven) -> Iterator[str]:
    if len(found.against) > _DRAWN_APIS:
        yield (
            f"Drawn: {_DRAWN_APIS} of {len(found.against)} APIs, the cheapest, the middle and the dearest a request, "
            "since more lines would hide one another. The table has them all.\n"
        )


def _sentence(found: Breakeven, against: Against) -> str:
    parts = [
        f"{host.style} {_above(crossing, host) if crossing is None else f'above {_above(crossing, host)} requests'}"
        for crossing, host in zip(against.crossings, found.hosts, strict=True)
    ]
    return f"{against.api.name}, {dollars(against.per_request)} a request, is undercut by {' and by '.join(parts)}"


def _api_facts(found: Breakeven, against: Against) -> dict[str, Any]:
    api = against.api
    return {
        "name": api.name,
        "vendor": api.vendor,
        "usd_per_request": f"{against.per_request:f}",
        "prompt_cached": against.cached,
        "price_source": api.source,
        "price_as_of": api.as_of.isoformat() if api.as_of else None,
        "price_url": api.url,
        "token_factor": str(api.token_factor),
        "self_hosting_cheaper_above": {
            host.style: {
                "requests_per_month": crossing.requests,
                "servers": crossing.servers,
                "monthly_usd": str(cents(crossing.monthly)),
            }
            if crossing
            else None
            for crossing, host in zip(against.crossings, found.hosts, strict=True)
        },
    }


def _source(api: ApiModel) -> str:
    return f"{api.source} {api.as_of}" if api.as_of else api.source
