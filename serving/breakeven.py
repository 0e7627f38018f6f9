"""From how many requests a month a server of one's own costs less than a closed API, and whether it can answer them.

A comparison of prices, not of answers. The API is paid per token, a server per hour: always on, or asleep without
requests. More requests than one server answers at peak hours need another server, so the cost of one's own is a
staircase, and a break-even only counts where the servers that are paid for can carry it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, Decimal
from functools import cache
from typing import Literal

from serving.apis import ApiModel, price_at, request_price
from serving.cost import BASED_ON_USE, Assumptions, Estimator
from serving.offers import Offer
from serving.scale_to_zero import always_on_rate
from serving.spec import HOURS_PER_MONTH, DeploymentSpec

MONTH_S = HOURS_PER_MONTH * 3600

OBSERVED_TOKENS_PER_S = Decimal("337.46")
"""Answer tokens a second of one server: 11,619 in 50 requests, 10 at a time (Qwen3-4B on Modal's A10, 2026-01-16)."""

OBSERVED_ON = "A10"
"""The GPU of that measurement."""

Style = Literal["always on", "scale to zero"]
_STYLES: tuple[Style, ...] = ("always on", "scale to zero")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a comparison takes for granted besides the spec. Every field may be replaced by a measurement.

    Attributes:
        tokens_per_s: answer tokens a second of one whole server, all its streams together.
        maintenance: US dollars a month for looking after servers of one's own, however many they are.
        peak: the busiest time's traffic over the mean; 3 to 5 is usual where people ask during the day.
        cached_tokens: of each prompt, the same in every request and marked for the API's prompt cache.
        max_servers: no more are considered.
        assumed: of the estimate of a server's cost. Its `concurrency` follows from `tokens_per_s` here. With fewer
            `hours` than the month has, servers are destroyed in between, and the month's requests come in those hours.
    """

    tokens_per_s: Decimal = OBSERVED_TOKENS_PER_S
    maintenance: Decimal = Decimal(0)
    peak: Decimal = Decimal(4)
    cached_tokens: int = 0
    max_servers: int = 8
    assumed: Assumptions = field(default_factory=Assumptions)

    @property
    def seconds(self) -> Decimal:
        """In the month's hours."""
        return self.assumed.hours * 3600


@dataclass(frozen=True)
class SelfHost:
    """One way to host it.

    Attributes:
        offer: what is rented; None when the user said what it costs.
        busy: US dollars a month of one server that never sleeps, without maintenance.
        cost: (requests a month, servers) -> US dollars a month, maintenance included. It never falls with requests.
    """

    style: Style
    offer: Offer | None
    busy: Decimal
    cost: Callable[[int, int], Decimal]


@dataclass(frozen=True, slots=True)
class Crossing:
    """Above `requests` a month, `servers` of one's own cost less than the API, which costs `monthly` there.

    It holds up to what that many servers can answer.
    """

    requests: int
    servers: int
    monthly: Decimal


@dataclass(frozen=True)
class Against:
    """One API against every way of hosting.

    `per_request` is US dollars with a cache that never expires; `cached` says whether the prompt is cached at all.
    A crossing is None where `Terms.max_servers` servers never cost less.
    """

    api: ApiModel
    per_request: Decimal
    cached: bool
    crossings: tuple[Crossing | None, ...]


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a load asks of servers: answer tokens a second, on average and at the busiest time."""

    requests: int
    mean_tokens_per_s: Decimal
    peak_tokens_per_s: Decimal
    servers: int


@dataclass(frozen=True, slots=True)
class Switch:
    """Where always on begins to beat scale to zero: share of the time a worker is up, and requests a month.

    `requests` is None when no traffic gets there.
    """

    utilisation: Decimal
    requests: int | None


@dataclass(frozen=True)
class Breakeven:
    """Everything that `vllm-anywhere breakeven` shows.

    Attributes:
        hosts: the ways of hosting, in the order of `Against.crossings`; always on first. Empty when nothing fits.
        declared: the capacity that the declared use takes; None when none is declared.
        most: requests a month that one server answers, peaks included.
        switch: None unless both ways of hosting are known.
    """

    spec: DeploymentSpec
    terms: Terms
    hosts: tuple[SelfHost, ...]
    against: tuple[Against, ...]
    declared: Capacity | None
    most: int
    switch: Switch | None

    @property
    def requests_per_month(self) -> int | None:
        """The declared use."""
        return self.declared.requests if self.declared else None

    def per_million(self, host: SelfHost) -> Decimal:
        """US dollars for a million answer tokens of one server that is never idle."""
        return per_million_tokens(host.busy / self.terms.assumed.hours, self.terms.tokens_per_s)

    def api_monthly(self, api: ApiModel, requests: int) -> Decimal:
        """US dollars that the API costs for that many requests a month."""
        return _api_price(self.spec, self.terms, api, requests) * requests

    def monthly(self, host: SelfHost, requests: int) -> Decimal | None:
        """US dollars that hosting costs for that many requests a month, with the servers that they take.

        None when they take more than `Terms.max_servers`.
        """
        servers = capacity(requests, self.spec.usage.output_tokens, self.terms).servers
        return host.cost(requests, servers) if servers <= self.terms.max_servers else None


def breakeven(
    spec: DeploymentSpec, offers: Sequence[Offer], apis: Sequence[ApiModel], terms: Terms, own: Decimal | None = None
) -> Breakeven:
    """Compare the cheapest always-on and the cheapest scale-to-zero offer with APIs, for the requests of `spec.usage`.

    `offers` are those that can be taken; one with an unknown price is passed over. `own` is US dollars a month of a
    server of one's own, in place of any offer. APIs that don't take prompts of that length are left out.
    """
    usage = spec.usage
    together = max(1, int(terms.tokens_per_s / terms.assumed.tokens_per_s))
    # A break-even has no range of traffic: traffic is what it is about.
    assumed = replace(terms.assumed, concurrency=together, traffic=(Decimal(1), Decimal(1)))
    terms = replace(terms, assumed=assumed)
    hosts = (_owned(own, terms),) if own is not None else _rented(spec, offers, terms)
    against = tuple(_against(spec, terms, api, hosts) for api in apis if api.takes(usage.input_tokens))
    declared = None
    if usage.requests_per_day is not None:
        requests = round(Decimal(usage.requests_per_day) * terms.assumed.hours / 24)
        declared = capacity(requests, usage.output_tokens, terms)
    most = most_requests(1, usage.output_tokens, terms)
    return Breakeven(spec, terms, hosts, against, declared, most, _switch(spec, terms, hosts))


def break_even_requests(self_host_monthly: Decimal, per_request: Decimal) -> int | None:
    """Most requests a month for which an API costs no more than hosting; None when that is any number."""
    return int(self_host_monthly / per_request) if per_request else None


def per_million_tokens(hourly: Decimal, tokens_per_s: Decimal) -> Decimal:
    """US dollars for a million tokens of a server that is never idle."""
    return hourly / 3600 / tokens_per_s * 10**6


def capacity(requests: int, output_tokens: int, terms: Terms) -> Capacity:
    """What that many requests a month ask of servers."""
    mean = Decimal(requests) * output_tokens / terms.seconds
    peak = mean * terms.peak
    return Capacity(requests, mean, peak, max(1, int((peak / terms.tokens_per_s).to_integral_value(ROUND_CEILING))))


def most_requests(servers: int, output_tokens: int, terms: Terms) -> int:
    """Requests a month that so many servers answer, peaks included."""
    return int(servers * terms.tokens_per_s * terms.seconds / output_tokens / terms.peak)


def always_on_utilisation(always_on: Decimal, asleep: Decimal, awake: Decimal) -> Decimal:
    """Share of the time a sleeping worker must be up to cost as much as one that is always on; 1 or more is never.

    All are US dollars a month: `asleep` of a worker that never wakes (its disk), `awake` of one that never sleeps.
    """
    if awake <= asleep:
        return Decimal(0) if always_on < asleep else Decimal(1)
    return max(Decimal(0), (always_on - asleep) / (awake - asleep))


def first_crossing(
    host: Callable[[int, int], Decimal], per_request: Callable[[int], Decimal], most: Callable[[int], int], servers: int
) -> Crossing | None:
    """Where hosting begins to cost less, with the fewest servers with which it ever does; None when it never does.

    `host` (requests a month, servers -> US dollars a month) must not fall with requests, `per_request` (requests a
    month -> US dollars) not rise, and `most` is what so many servers can answer. Then "the requests for which the API
    costs what hosting costs now" steps down, from the most that the servers can answer, to the last volume at which
    both cost the same.
    """
    for count in range(1, servers + 1):
        least, requests = most(count - 1), most(count)
        paying = break_even_requests(host(requests, count), per_request(requests))
        if paying is None or paying >= requests:
            continue
        while least < paying < requests:
            requests = paying
            paying = break_even_requests(host(requests, count), per_request(requests)) or 0
        # Where several workers sleep, the cost is counted from a replay, which is not smooth.
        reached = max(min(paying, requests), least)
        return Crossing(reached, count, per_request(reached) * reached)
    return None


def _against(spec: DeploymentSpec, terms: Terms, api: ApiModel, hosts: Sequence[SelfHost]) -> Against:
    usage = spec.usage
    prompt = min(terms.cached_tokens, usage.input_tokens)
    crossings = tuple(
        first_crossing(
            host.cost,
            lambda requests: _api_price(spec, terms, api, requests),
            lambda servers: most_requests(servers, usage.output_tokens, terms),
            terms.max_servers,
        )
        for host in hosts
    )
    price = request_price(api, usage.input_tokens, usage.output_tokens, prompt)
    return Against(api, price, api.caches(prompt), crossings)


def _api_price(spec: DeploymentSpec, terms: Terms, api: ApiModel, requests: int) -> Decimal:
    pace = round(requests * HOURS_PER_MONTH / terms.assumed.hours)
    return price_at(api, spec.usage.input_tokens, spec.usage.output_tokens, terms.cached_tokens, pace)


def _owned(monthly: Decimal, terms: Terms) -> SelfHost:
    return SelfHost("always on", None, monthly, lambda _, servers: monthly * servers + terms.maintenance)


def _rented(spec: DeploymentSpec, offers: Sequence[Offer], terms: Terms) -> tuple[SelfHost, ...]:
    hosts: list[SelfHost] = []
    for style in _STYLES:
        sleeps = style == "scale to zero"
        of_style = [offer for offer in offers if (offer.kind in BASED_ON_USE) == sleeps]
        chosen = _cheapest(_with_workers(spec, sleeps, 1), of_style, terms)
        if chosen:
            busy = _cost_of(spec, chosen, False, terms)(0, 1) - terms.maintenance
            hosts.append(SelfHost(style, chosen, busy, _cost_of(spec, chosen, sleeps, terms)))
    return tuple(hosts)


def _cheapest(spec: DeploymentSpec, offers: Sequence[Offer], terms: Terms) -> Offer | None:
    """By its cost at the declared use; without one, by that of a server that never sleeps."""
    estimator = Estimator(spec, terms.assumed)
    costs = [(estimator.totals(offer), offer) for offer in offers]
    known = [
        (span.high if open_use else span.expected, offer.platform, offer.sku, offer.region, offer)
        for (span, incomplete, open_use), offer in costs
        if not incomplete
    ]
    return min(known, key=lambda entry: entry[:4])[-1] if known else None


def _cost_of(spec: DeploymentSpec, offer: Offer, sleeps: bool, terms: Terms) -> Callable[[int, int], Decimal]:
    @cache
    def cost(requests: int, servers: int) -> Decimal:
        per_day = round(Decimal(requests) * 24 / terms.assumed.hours)
        usage = spec.usage.model_copy(update={"requests_per_day": per_day})
        at = _with_workers(spec, sleeps, servers).model_copy(update={"usage": usage})
        return Estimator(at, terms.assumed).totals(offer)[0].expected + terms.maintenance

    return cost


def _with_workers(spec: DeploymentSpec, sleeps: bool, servers: int) -> DeploymentSpec:
    scaling = spec.scaling.model_copy(update={"min": 0 if sleeps else servers, "max": servers})
    return spec.model_copy(update={"scaling": scaling})


def _switch(spec: DeploymentSpec, terms: Terms, hosts: Sequence[SelfHost]) -> Switch | None:
    styles = {host.style: host for host in hosts}
    if len(styles) < len(_STYLES):
        return None
    steady, sleepy = styles["always on"], styles["scale to zero"]
    share = always_on_utilisation(steady.busy, sleepy.cost(0, 1) - terms.maintenance, sleepy.busy)
    if share >= 1:
        return Switch(share, None)
    seconds = spec.usage.output_tokens / terms.assumed.tokens_per_s
    rate = always_on_rate(float(seconds), spec.scaling.idle_timeout_s, float(terms.assumed.boot_s), float(share))
    return Switch(share, round(rate * float(terms.seconds)))
