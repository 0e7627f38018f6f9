"""Closed API against a server of one's own: the arithmetic of the study that the numbers are from, and its errors."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.apis import ApiModel, ApiTableError, api_models, cache_misses, price_at, request_price
from serving.breakeven import (
    Breakeven,
    Capacity,
    Crossing,
    Switch,
    Terms,
    always_on_utilisation,
    break_even_requests,
    breakeven,
    capacity,
    first_crossing,
    most_requests,
    per_million_tokens,
)
from serving.cost import Assumptions
from serving.offers import Offer, Rate
from serving.spec import DeploymentSpec

REQUESTS = 30_000
"""1,000 a day in the study's month of 30 days; each has 500 prompt and 200 answer tokens."""


def api(name: str) -> ApiModel:
    (found,) = [one for one in api_models() if one.name == name and one.takes(500)]
    return found


SONNET, HAIKU, OPUS = (api(f"Claude {name} 4.5") for name in ("Sonnet", "Haiku", "Opus"))
SONNET_AS_PRINTED = replace(SONNET, cache_minimum_tokens=0)
"""The study's Sonnet, whose cache takes any prompt."""


def rate(price: str, unit: str = "Hours", bills: str = "running", meter: str = "GPU") -> Rate:
    return Rate(meter, unit, Decimal(price), "snapshot", "", date(2026, 6, 8), bills=bills)  # pyright: ignore


def offer(kind: str, sku: str, *rates: Rate) -> Offer:
    return Offer(
        platform="runpod",
        kind=kind,  # pyright: ignore
        sku=sku,
        gpu="RTX 4090",
        gpu_count=1,
        region="",
        country="",
        tier="secure",
        spot=False,
        rates=rates,
    )


POD = offer("pod", "RTX 4090", rate("0.34"))
FLEX = offer("serverless", "AMPERE_16", rate("0.00016", "Seconds", "awake"))
SPEC = DeploymentSpec()


def compared(*offers: Offer, spec: DeploymentSpec = SPEC, terms: Terms | None = None) -> Breakeven:
    return breakeven(spec, offers, api_models(), terms or Terms())


def crossing(found: Breakeven, name: str, style: str = "always on") -> Crossing | None:
    place = [host.style for host in found.hosts].index(style)  # pyright: ignore
    return next(one for one in found.against if one.api.name == name).crossings[place]


# What the study printed, and what comes out of its inputs.


def test_thirty_thousand_requests_of_sonnet_cost_135_dollars() -> None:
    assert request_price(SONNET, 500, 0) * REQUESTS == Decimal(45)
    assert request_price(SONNET, 0, 200) * REQUESTS == Decimal(90)
    assert request_price(SONNET, 500, 200) * REQUESTS == Decimal(135)


def test_a_cache_without_a_minimum_would_make_that_94_50() -> None:
    writes = request_price(SONNET_AS_PRINTED, 500, 200, 500, missed=Decimal(1)) * 2
    reads = request_price(SONNET_AS_PRINTED, 500, 200, 500) * (REQUESTS - 2)
    assert round(writes + reads, 2) == Decimal("94.50")
    assert round(135 - (writes + reads), 2) == Decimal("40.50")
    assert request_price(SONNET_AS_PRINTED, 500, 0, 500, missed=Decimal(1)) * 2 == Decimal("0.00375")


@pytest.mark.parametrize(("requests", "printed"), [(30_000, 95), (100_000, 315), (300_000, 945), (1_000_000, 3150)])
def test_the_table_by_volume_comes_out_as_printed(requests: int, printed: int) -> None:
    per_request = request_price(SONNET_AS_PRINTED, 500, 200, 500)
    assert per_request == Decimal("0.00315")
    # 94.5 was printed as 95.
    assert (per_request * requests + Decimal("0.5")) // 1 == printed


@pytest.mark.parametrize(
    ("monthly", "model", "cached", "requests"),
    [
        (298, SONNET_AS_PRINTED, 500, 94_603),
        (248, SONNET_AS_PRINTED, 500, 78_730),
        (298, SONNET_AS_PRINTED, 0, 66_222),
    ],
    ids=["as printed", "without maintenance", "without caching"],
)
def test_the_break_even_comes_out_as_printed(monthly: int, model: ApiModel, cached: int, requests: int) -> None:
    assert break_even_requests(Decimal(monthly), request_price(model, 500, 200, cached)) == requests


def test_haiku_costs_fifteen_hundredths_of_a_cent_a_request() -> None:
    assert request_price(HAIKU, 500, 200) == Decimal("0.0015")


@pytest.mark.parametrize("model", [HAIKU, SONNET, OPUS], ids=lambda one: one.name)
def test_a_cache_write_costs_five_quarters_and_a_read_a_tenth(model: ApiModel) -> None:
    assert model.cache_write_per_m == model.input_per_m * Decimal("1.25")
    assert model.cache_read_per_m == model.input_per_m * Decimal("0.1")


def test_a_million_requests_a_month_ask_for_76_tokens_a_second() -> None:
    asked = capacity(1_000_000, 200, Terms(peak=Decimal(5)))
    assert round(asked.mean_tokens_per_s) == 76
    assert round(asked.peak_tokens_per_s) == 381
    assert asked.servers == 2


# What the study printed and must not come out.


def test_a_prompt_of_500_tokens_is_not_cached() -> None:
    assert request_price(SONNET, 500, 200, cached_prompt_tokens=500) * REQUESTS == Decimal(135)
    own = breakeven(SPEC, (), [SONNET], Terms(maintenance=Decimal(50), cached_tokens=500), own=Decimal(248))
    assert not own.against[0].cached
    assert crossing(own, SONNET.name) == Crossing(66_222, 1, Decimal("297.9990"))


def test_a_hundred_million_tokens_never_cost_3000_dollars() -> None:
    least = request_price(SONNET, 100_000_000, 0)
    most = request_price(SONNET, 0, 100_000_000)
    assert (least, most) == (300, 1500)


@pytest.mark.parametrize(("model", "minimum"), [(SONNET, 1024), (HAIKU, 4096), (OPUS, 4096)], ids=lambda v: str(v))
def test_the_cache_begins_at_its_minimum(model: ApiModel, minimum: int) -> None:
    plain = request_price(model, 5000, 200)
    assert request_price(model, 5000, 200, minimum - 1) == plain
    assert request_price(model, 5000, 200, minimum) < plain


# Caching.


def test_rare_requests_find_the_cache_expired() -> None:
    assert cache_misses(0) == 1
    # One every 300 s on average: e^-1 of them come more than 300 s after the one before.
    assert round(cache_misses(8760), 4) == Decimal("0.3679")
    assert cache_misses(1_000_000) < Decimal("1e-40")


def test_what_is_asked_too_rarely_is_not_cached_at_all() -> None:
    assert price_at(SONNET, 5000, 200, 4000, requests_per_month=30) == request_price(SONNET, 5000, 200)


@given(
    model=st.sampled_from(api_models()),
    prompt=st.integers(1, 90_000),
    cached=st.integers(0, 200_000),
    requests=st.integers(0, 10**8),
)
def test_caching_never_makes_a_request_dearer(model: ApiModel, prompt: int, cached: int, requests: int) -> None:
    plain = request_price(model, prompt, 200)
    assert 0 < price_at(model, prompt, 200, cached, requests) <= plain
    assert request_price(model, prompt, 200, cached) <= plain


@given(requests=st.integers(0, 10**7), more=st.integers(0, 10**7), cached=st.integers(0, 10_000))
def test_a_request_gets_no_dearer_with_traffic(requests: int, more: int, cached: int) -> None:
    rare, often = (price_at(SONNET, 10_000, 1, cached, count) for count in (requests, requests + more))
    assert often <= rare


# The break-even.


@given(
    cost=st.decimals(0, 10**6, places=2),
    more=st.decimals(0, 10**6, places=2),
    price=st.decimals("0.000001", 10, places=6),
)
def test_the_break_even_is_never_negative_and_grows_with_the_cost(cost: Decimal, more: Decimal, price: Decimal) -> None:
    least, most = break_even_requests(cost, price), break_even_requests(cost + more, price)
    assert least is not None
    assert most is not None
    assert 0 <= least <= most
    assert least * price <= cost < (least + 1) * price


def test_a_free_api_is_never_beaten() -> None:
    assert break_even_requests(Decimal(1), Decimal(0)) is None
    assert first_crossing(lambda *_: Decimal(1), lambda _: Decimal(0), lambda servers: servers * 1000, 8) is None


@given(
    fixed=st.integers(0, 2000),
    per_thousand=st.integers(0, 400),
    price=st.integers(1, 500),
    answered=st.integers(1, 300_000),
)
def test_beyond_the_break_even_hosting_costs_less_up_to_what_its_servers_answer(
    fixed: int, per_thousand: int, price: int, answered: int
) -> None:
    def host(requests: int, servers: int) -> Decimal:
        return Decimal(fixed * servers) + Decimal(per_thousand * requests) / 10**6

    each = Decimal(price) / 10**6
    found = first_crossing(host, lambda _: each, lambda servers: servers * answered, 4)
    if found is None:
        for servers in range(1, 5):
            most = servers * answered
            assert host(most, servers) >= each * most
        return
    last = found.servers * answered
    assert found.requests < last
    assert found.requests >= (found.servers - 1) * answered
    assert found.monthly == each * found.requests
    for requests in (found.requests + 1, (found.requests + 1 + last) // 2, last):
        assert host(requests, found.servers) < each * requests
    if found.requests > (found.servers - 1) * answered:
        assert host(found.requests, found.servers) >= each * found.requests


def test_a_break_even_beyond_one_server_counts_the_servers_that_it_takes() -> None:
    # At 0.000195 a request 248.20 are 1.27 million requests, but one server answers 1.1 million; each one more of them
    # costs another 248.20, so the API stays cheaper at any volume.
    found = compared(POD)
    assert found.most == 1_108_556
    assert crossing(found, "Claude Haiku 5.5") is None
    steady = compared(POD, terms=Terms(peak=Decimal(1)))
    assert crossing(steady, "Claude Haiku 5.5") == Crossing(1_272_820, 1, Decimal("248.199900"))


def test_maintenance_is_paid_once_however_many_servers() -> None:
    found = compared(POD, terms=Terms(maintenance=Decimal(50)))
    (host,) = found.hosts
    assert host.cost(0, 1) == Decimal("298.20")
    assert host.cost(0, 3) == Decimal("794.60")
    assert host.busy == Decimal("248.20")


def test_maintenance_moves_the_break_even_up() -> None:
    without, with_it = compared(POD), compared(POD, terms=Terms(maintenance=Decimal(50)))
    before, after = crossing(without, SONNET.name), crossing(with_it, SONNET.name)
    assert before is not None
    assert after is not None
    assert (before.requests, after.requests) == (55_155, 66_266)


def test_traffic_is_part_of_the_cost_of_a_server() -> None:
    metered = replace(POD, rates=(*POD.rates, rate("0.02", "GB", "upload", "egress")))
    dearer, plain = (crossing(compared(one), SONNET.name) for one in (metered, POD))
    assert dearer is not None
    assert plain is not None
    assert dearer.requests > plain.requests


def test_the_cheapest_offer_of_either_kind_is_compared() -> None:
    dear = replace(POD, sku="A100", rates=(rate("1.99"),))
    unknown = replace(POD, sku="mystery", rates=(replace(rate("0.01"), unit_price=None),))
    found = compared(dear, unknown, FLEX, POD)
    assert [(host.style, host.offer) for host in found.hosts] == [("always on", POD), ("scale to zero", FLEX)]


def test_a_cost_of_ones_own_needs_no_offer() -> None:
    found = breakeven(SPEC, [POD, FLEX], [SONNET], Terms(maintenance=Decimal(50)), own=Decimal(248))
    assert [host.offer for host in found.hosts] == [None]
    assert crossing(found, SONNET.name) == Crossing(66_222, 1, Decimal("297.9990"))


def test_with_nothing_to_rent_there_is_nothing_to_compare() -> None:
    found = compared()
    assert found.hosts == ()
    assert found.switch is None
    assert all(one.crossings == () for one in found.against)


def test_an_api_is_compared_at_the_price_for_prompts_of_that_length() -> None:
    usage = SPEC.usage.model_copy(update={"input_tokens": 200_000})
    found = compared(POD, spec=SPEC.model_copy(update={"usage": usage}))
    (long,) = [one for one in found.against if one.api.name == "Claude Haiku 5.5"]
    assert long.per_request == (200_000 * Decimal("0.50") + 200 * Decimal("2.50")) * Decimal("1.3") / 10**6


def test_a_tokenizer_that_makes_more_tokens_of_a_text_is_priced_so() -> None:
    newer = api("Claude Sonnet 5.5")
    assert newer.token_factor == Decimal("1.3")
    same = replace(newer, token_factor=Decimal(1))
    assert request_price(newer, 500, 200) == request_price(same, 500, 200) * Decimal("1.3")
    # Its 512 tokens of cache minimum are 394 declared ones, and a row for up to 100,000 takes 76,923.
    assert (newer.caches(393), newer.caches(394), same.caches(511)) == (False, True, False)
    short = api("Claude Haiku 5.5")
    assert (short.takes(76_923), short.takes(76_924)) == (True, False)
    assert SONNET.token_factor == 1


def test_a_users_table_may_say_how_many_tokens_a_tokenizer_makes() -> None:
    (mine,) = [
        one for one in api_models("name,input_per_m,output_per_m,token_factor\nMine,1,2,0.9\n") if one.name == "Mine"
    ]
    assert mine.token_factor == Decimal("0.9")
    with pytest.raises(ApiTableError, match=r"token_factor = 0: tokens that it counts for one declared"):
        api_models("name,input_per_m,output_per_m,token_factor\nMine,1,2,0\n")


# Capacity and throughput.


def test_a_million_tokens_cost_what_an_idle_free_server_costs_meanwhile() -> None:
    # 337.46 tokens/s take 2,963 s for a million: 0.8231 h at 0.34.
    assert round(per_million_tokens(Decimal("0.34"), Decimal("337.46")), 4) == Decimal("0.2799")
    (host,) = compared(POD).hosts
    assert round(compared(POD).per_million(host), 4) == Decimal("0.2799")


@given(requests=st.integers(0, 10**9), tokens=st.integers(1, 10_000), peak=st.integers(1, 10))
def test_as_many_servers_as_a_load_takes_can_answer_it(requests: int, tokens: int, peak: int) -> None:
    terms = Terms(peak=Decimal(peak))
    asked = capacity(requests, tokens, terms)
    assert most_requests(asked.servers, tokens, terms) >= requests
    assert asked.servers == 1 or most_requests(asked.servers - 1, tokens, terms) < requests


def test_the_declared_use_is_checked_against_one_server() -> None:
    spec = SPEC.model_copy(update={"usage": SPEC.usage.model_copy(update={"requests_per_day": 200_000})})
    found = compared(POD, spec=spec)
    assert isinstance(found.declared, Capacity)
    assert found.requests_per_month == 6_083_333
    assert found.declared.servers == 6
    assert found.monthly(found.hosts[0], 6_083_333) == 6 * Decimal("248.20")
    assert found.monthly(found.hosts[0], 9_000_000) is None


# Always on or asleep.


@pytest.mark.parametrize(
    ("active", "flex", "share"),
    [("0.00011", "0.00016", "0.6875"), ("0.00021", "0.00031", "0.6774"), ("0.00093", "0.00116", "0.8017")],
)
def test_the_utilisation_at_which_always_on_wins_is_the_ratio_of_the_prices(active: str, flex: str, share: str) -> None:
    assert round(always_on_utilisation(Decimal(active), Decimal(0), Decimal(flex)), 4) == Decimal(share)


def test_always_on_begins_to_win_where_the_published_example_says() -> None:
    # A worker at 0.00011 always on and 0.00016 asleep, 4 s a request, 5 s idle, 20 s of start: 5,865 requests a day.
    steady = offer("pod", "active", rate("0.00011", "Seconds"))
    scaling = SPEC.scaling.model_copy(update={"idle_timeout_s": 5})
    assumed = replace(Terms().assumed, tokens_per_s=Decimal(50), boot_s=Decimal(20))
    found = compared(steady, FLEX, spec=SPEC.model_copy(update={"scaling": scaling}), terms=Terms(assumed=assumed))
    assert found.switch is not None
    assert found.switch.requests is not None
    assert found.switch.utilisation == Decimal("0.6875")
    assert round(Decimal(found.switch.requests) * 24 / 730) == 5865


def test_at_equal_prices_sleeping_always_wins() -> None:
    same = offer("pod", "active", rate("0.00016", "Seconds"))
    assert compared(same, FLEX).switch == Switch(Decimal(1), None)


def test_a_disk_that_is_paid_asleep_too_moves_the_switch_down() -> None:
    kept = replace(FLEX, rates=(*FLEX.rates, rate("0.10", "GB-Months", "kept", "disk")))
    plain, with_disk = compared(POD, FLEX).switch, compared(POD, kept).switch
    assert plain is not None
    assert with_disk is not None
    assert with_disk.utilisation < plain.utilisation


def test_the_cost_of_sleeping_servers_rises_with_requests_up_to_never_asleep() -> None:
    found = compared(FLEX)
    (host,) = found.hosts
    costs = [host.cost(requests, 1) for requests in (0, 1000, 10_000, 100_000, 1_000_000)]
    assert costs[0] == 0
    assert all(less < more for less, more in pairwise(costs))
    assert costs[-1] <= host.busy == Decimal("420.48")


# The table of prices.


def test_every_price_has_a_source_and_a_date() -> None:
    for one in api_models():
        assert one.source == "snapshot"
        assert one.url.startswith("https://")
        assert one.as_of is not None
        assert one.obtained


def test_a_users_row_wins_and_says_that_it_is_the_users() -> None:
    text = "name,input_per_m,output_per_m\nClaude Haiku 5.5,0.20,1.00\nMine,0.05,0.10\n"
    found = api_models(text)
    assert [one.name for one in found].count("Claude Haiku 5.5") == 1
    own = {one.name: one for one in found if one.source == "user"}
    assert own["Claude Haiku 5.5"].input_per_m == Decimal("0.20")
    assert own["Mine"].vendor == ""
    assert not own["Mine"].caches(10_000)
    assert {one.name for one in found if one.source == "snapshot"} >= {"Claude Sonnet 4.5", "Claude Opus 5.5"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: no column name"),
        ("name,input_per_m\nx,1\n", "no column output_per_m"),
        ("name,input_per_m,output_per_m,prize\n", "unknown column 'prize'"),
        ("name,input_per_m,output_per_m\nx,cheap,1\n", "line 2, input_per_m = cheap: US dollars"),
        ("name,input_per_m,output_per_m\nx,-1,1\n", "line 2, input_per_m = -1"),
        ("name,input_per_m,output_per_m\nx,,1\n", "line 2, input_per_m = nothing"),
        ("name,input_per_m,output_per_m\n,1,1\n", "line 2, name = nothing: the model's name"),
        ("name,input_per_m,output_per_m\nx,1,1,1\n", "line 2: more values than columns"),
        ("name,input_per_m,output_per_m,as_of\nx,1,1,today\n", "as_of = today: a day"),
        ("name,input_per_m,output_per_m,cache_minimum_tokens\nx,1,1,few\n", "a whole number of tokens"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ApiTableError, match=said):
        api_models(text)


def test_a_cache_whose_minimum_is_not_known_counts_for_nothing() -> None:
    text = "name,input_per_m,output_per_m,cache_write_per_m,cache_read_per_m\nMine,1,1,1.25,0.1\n"
    mine = api_models(text)[0]
    assert request_price(mine, 50_000, 1, 50_000) == request_price(mine, 50_000, 1)


def test_no_money_is_a_float() -> None:
    found = compared(POD, FLEX, terms=Terms(maintenance=Decimal(50), cached_tokens=500))
    for host in found.hosts:
        assert isinstance(host.cost(12_345, 1), Decimal)
        assert isinstance(found.per_million(host), Decimal)
    for one in found.against:
        assert isinstance(one.per_request, Decimal)
        assert isinstance(found.api_monthly(one.api, 12_345), Decimal)
        assert all(isinstance(c.monthly, Decimal) for c in one.crossings if c)


def test_servers_kept_half_the_month_cost_half_and_break_even_at_half_the_requests() -> None:
    half = compared(POD, terms=Terms(assumed=Assumptions(hours=Decimal(365))))
    whole, kept = crossing(compared(POD), SONNET.name), crossing(half, SONNET.name)
    assert whole and kept
    assert (whole.requests, kept.requests) == (55_155, 27_577)
    assert half.hosts[0].busy * 2 == Decimal("0.34") * 730
    assert half.most == compared(POD).most // 2
