"""The report in a real headless Chromium: no network, controls that move the curves, and figures right to the cent."""

from __future__ import annotations

import argparse
import base64
import decimal
import json
import os
import random
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.breakeven import add_breakeven
from ops.compare import add_compare
from ops.report import add_report, gathered
from ops.report_facts import Report, grown, page_facts
from ops.report_page import page as page_text
from serving.breakeven import Terms, breakeven
from serving.cost import Estimator
from serving.lines import cents

# One worker works the page out once.
pytestmark = [pytest.mark.heavy, pytest.mark.xdist_group("report page")]

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None and not os.environ.get("CI"):
    pytest.skip("there is no chromium on PATH (Debian package `chromium`)", allow_module_level=True)

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SIZES = {"desk": (1440, 900), "phone": (390, 844)}
READY = "html[data-state=ready][data-charts=ready]"
CHARTS = ("curves", "bars", "months-chart", "memory")


@dataclass(frozen=True)
class Shown:
    """A report as a file, and the browser to see it with."""

    report: Report
    file: Path
    browser: Any

    def open(self, size: str = "desk", scheme: str = "light", **context: Any) -> Any:
        """A page that has drawn its charts. What it complains of and asks of the network is in `said`."""
        width, height = SIZES[size]
        page = self.browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, **context)
        page.said = []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda asked: page.said.append(asked.url) if asked.url != self.file.as_uri() else None)
        page.goto(self.file.as_uri())
        page.wait_for_selector(READY, state="attached")
        return page


def gather(*args: str) -> Report:
    parser = argparse.ArgumentParser()
    add_report(parser.add_subparsers())
    return gathered(parser.parse_args(["report", "--offline", *args]))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    report = gather("--set", "usage.requests_per_day=1000", "--set", "budget.monthly_usd=250")
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(page_text(page_facts(report), "A report"), encoding="utf-8")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield Shown(report, file, browser)
        browser.close()


@pytest.fixture(scope="module")
def opened(shown: Shown) -> Iterator[Any]:
    """One page for all tests that need no other."""
    page = shown.open()
    yield page
    page.close()


@pytest.fixture
def desk(opened: Any) -> Any:
    """That page as it was when it opened."""
    opened.click("#reset")
    settle(opened)
    return opened


def enter(page: Any, fields: Mapping[str, object]) -> None:
    for name, value in fields.items():
        page.fill(f"#{name}", str(value))
    settle(page)


def settle(page: Any) -> None:
    """A change marks the page busy before the event that made it has ended."""
    page.wait_for_selector(READY, state="attached")


def answer(add: Any, command: str, capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    """What a command prints with `--json`."""
    parser = argparse.ArgumentParser()
    add(parser.add_subparsers())
    parsed = parser.parse_args([command, "--json", *args])
    parsed.run(parsed)
    return json.loads(capsys.readouterr().out)


def sets(values: Mapping[str, object]) -> list[str]:
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


NOTHING = "\N{EN DASH}"
OFFER = ("provider", "kind", "sku", "gpu", "region", "tier", "spot")


def by_offer(facts: dict[str, Any]) -> dict[tuple[object, ...], list[str] | None]:
    """What `compare --json` says of each offer that can be taken: low, expected and high."""
    return {
        tuple(one[key] for key in OFFER): None if one["incomplete"] else [one["low"], one["monthly_usd"], one["high"]]
        for one in facts["offers"]
        if one["fits"]
    }


COMPARED = """(plan) => compare(plan, data.offers.filter((one) => plan.spot || !one.spot)).map(({ offer, cost }) => [
  [offer.provider, offer.kind, offer.sku, offer.gpu, offer.region, offer.tier, offer.spot],
  cost && ["low", "expected", "high"].map((end) => cost[end].toFixed(2)),
])"""


def in_page(page: Any, plan: Mapping[str, object]) -> dict[tuple[object, ...], list[str] | None]:
    more = page.evaluate("({ slots: data.slots, traffic: data.traffic, hours: '730', spot: false })")
    return {tuple(key): value for key, value in page.evaluate(COMPARED, {**more, **plan})}


def test_it_renders_without_a_network_or_a_complaint(desk: Any) -> None:
    assert desk.said == []
    assert desk.locator("h1").inner_text() == "What to rent for Qwen3-4B-Instruct-2507"
    for chart in CHARTS:
        assert desk.locator(f"#{chart} svg.main-svg").count() > 0, chart


def test_nothing_in_the_file_points_outside_but_links(shown: Shown) -> None:
    text = shown.file.read_text(encoding="utf-8")
    ours = re.sub(r'<script type="text/plain" id="plotly">[^<]*</script>', "", text)
    assert not re.search(r"<(link|img|iframe|script)[^>]+(src|href)=|@import|url\(|fetch\(|XMLHttpRequest", ours)
    assert len(text.encode()) < 3_000_000


SETTINGS = random.Random(20_261_121)
PLANS = [
    {
        "requests": int(10 ** SETTINGS.uniform(0, 6)),
        "input": int(10 ** SETTINGS.uniform(0, 5)),
        "output": int(10 ** SETTINGS.uniform(0, 4)),
        "idle": SETTINGS.choice([1, 5, 60, 300, 3600]),
        "min": low,
        "max": SETTINGS.randint(max(1, low), 8),
        "spot": SETTINGS.random() < 0.5,
    }
    for low in (SETTINGS.choice([0, 0, 1, 2, 5]) for _ in range(100))
]


@pytest.mark.parametrize(
    "plan", [pytest.param(plan, marks=[pytest.mark.slow] if index >= 6 else []) for index, plan in enumerate(PLANS)]
)
def test_the_page_counts_what_compare_counts(
    plan: dict[str, Any], desk: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {
        "usage.requests_per_day": plan["requests"],
        "usage.input_tokens": plan["input"],
        "usage.output_tokens": plan["output"],
        "scaling.min": plan["min"],
        "scaling.max": plan["max"],
        "scaling.idle_timeout_s": plan["idle"],
        "hardware.spot": str(plan["spot"]).lower(),
    }
    facts = answer(add_compare, "compare", capsys, "--offline", *sets(spec))
    assert len(by_offer(facts)) > 100
    assert in_page(desk, plan) == by_offer(facts)


BROKEN_EVEN = """([plan, terms]) => {
  const found = new Breakeven({ slots: data.slots, traffic: data.traffic, min: 1, max: 1, ...plan }, terms);
  const hosts = found.hosts.filter((host) => host.spot === plan.spot || (plan.spot && host.scales));
  const money = (host) => found.monthly(host, found.declared)?.toFixed(2) ?? null;
  const crossing = (host, api) => {
    const at = found.crossing(host, api);
    return at && [at.requests, at.servers, at.monthly.toFixed(2)];
  };
  return {
    declared: found.declared,
    servers: found.servers(found.declared),
    most: found.most(1),
    always_on: plan.spot ? null : found.switchover?.requests ?? null,
    hosts: hosts.map((host) => [host.offer.sku, host.offer.region, money(host)]),
    apis: found.apis.map((api) => [
      api.name,
      found.perRequest(api).toFixed(12),
      ...hosts.map((host) => crossing(host, api)),
    ]),
    months: sixMonths(found, found.apis[0], 7).map((month) => month.requests),
  };
}"""


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[] if seed in (0, 1, 3, 5, 6) else [pytest.mark.slow]) for seed in range(60)]
)
def test_the_page_breaks_even_where_breakeven_does(seed: int, desk: Any, shown: Shown) -> None:
    draw = random.Random(seed)
    spot = draw.random() < 0.3
    hours = draw.choice(["730", "730", "365", "176.5"])
    plan = {
        "requests": int(10 ** draw.uniform(0, 6)),
        "input": int(10 ** draw.uniform(0, 5)),
        "output": int(10 ** draw.uniform(1, 4)),
        "idle": draw.choice([1, 60, 3600]),
        "hours": hours,
        "spot": spot,
    }
    terms = {
        "speed": draw.choice(["337.46", "100", "1200.5"]),
        "peak": draw.choice(["1", "2.5", "4"]),
        "maintenance": draw.choice(["0", "50.25"]),
        "max_servers": 8,
    }
    spec = shown.report.spec
    usage = {"requests_per_day": plan["requests"], "input_tokens": plan["input"], "output_tokens": plan["output"]}
    spec = spec.model_copy(
        update={
            "usage": spec.usage.model_copy(update=usage),
            "scaling": spec.scaling.model_copy(update={"idle_timeout_s": plan["idle"]}),
        }
    )
    taken = [one.offer for one in shown.report.taken]
    offers = [one for one in taken if one.spot == spot or (spot and one.kind in ("serverless", "app"))]
    found = breakeven(
        spec,
        offers,
        shown.report.apis,
        Terms(
            Decimal(terms["speed"]),
            Decimal(terms["maintenance"]),
            Decimal(terms["peak"]),
            assumed=replace(shown.report.assumed, hours=Decimal(hours)),
        ),
    )
    assert found.declared

    def money(amount: Decimal | None) -> str | None:
        return None if amount is None else str(cents(amount))

    hosts = {
        (host.offer.sku, host.offer.region): money(found.monthly(host, found.declared.requests))
        for host in found.hosts
        if host.offer
    }
    said = desk.evaluate(BROKEN_EVEN, [plan, terms])
    order = [list(hosts).index((sku, region)) for sku, region, _ in said["hosts"]]
    assert said == {
        "declared": found.declared.requests,
        "servers": found.declared.servers,
        "most": found.most,
        "always_on": None if spot or not found.switch else found.switch.requests,
        "hosts": [[*list(hosts)[at], list(hosts.values())[at]] for at in order],
        "apis": [
            [
                one.api.name,
                f"{one.per_request:.12f}",
                *(
                    [crossing.requests, crossing.servers, money(crossing.monthly)] if crossing else None
                    for crossing in (one.crossings[at] for at in order)
                ),
            ]
            for one in found.against
        ],
        "months": list(grown(found.declared.requests, 7)),
    }


@pytest.mark.parametrize("hours", ["730", "365", "44.5"])
def test_fewer_hours_cost_in_the_page_what_they_cost_in_an_estimate(hours: str, desk: Any, shown: Shown) -> None:
    estimator = Estimator(shown.report.spec, replace(shown.report.assumed, hours=Decimal(hours)))
    expected = [str(cents(estimator.totals(one.offer)[0].expected)) for one in shown.report.taken if one.priced]
    plan = {"requests": 1000, "input": 500, "output": 200, "idle": 60, "min": 1, "max": 1, "hours": hours, "spot": True}
    said = [value[1] for value in in_page(desk, plan).values() if value]
    assert sorted(said) == sorted(expected)


NUMBERS = st.decimals(min_value=Decimal("-1e9"), max_value=Decimal("1e9"), places=None, allow_nan=False).map(
    lambda number: decimal.Context(prec=28).plus(number)
)


@settings(max_examples=25)
@given(pairs=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=60))
def test_the_pages_decimals_are_pythons(pairs: list[tuple[Decimal, Decimal]], opened: Any) -> None:
    pairs = [(a, b) for a, b in pairs if abs(a.adjusted()) < 40 and abs(b.adjusted()) < 40]
    said = opened.evaluate(
        """(pairs) => pairs.map(([a, b]) => {
          const [x, y] = [Decimal.of(a), Decimal.of(b)];
          const results = [x.plus(y), x.minus(y), x.times(y), ...(y.whole === 0n ? [] : [x.over(y)])];
          const whole = [x.floor(), x.ceiling(), x.round()].map(String);
          return [...results.map((one) => `${one.whole}E${one.exponent}`), ...whole, x.toFixed(2), x.compare(y)];
        })""",
        [[str(a), str(b)] for a, b in pairs],
    )
    for (a, b), results in zip(pairs, said, strict=True):
        *numbers, floor, up, even, fixed, order = results
        expected = [a + b, a - b, a * b, *([a / b] if b else [])]
        assert [Decimal(one) for one in numbers] == expected, (a, b)
        assert (int(floor), int(up), int(even)) == (int(a), int(a.to_integral_value(decimal.ROUND_CEILING)), round(a))
        assert Decimal(fixed) == cents(a)
        assert order == (a > b) - (a < b)


CONTROLLED: list[dict[str, Any]] = [
    {"requests": 200, "input": 300, "output": 150, "idle": 30},
    {"requests": 20_000, "input": 1200, "output": 400, "idle": 300},
    {"requests": 150_000, "input": 500, "output": 200, "idle": 60},
]


@pytest.mark.parametrize("fields", CONTROLLED)
def test_what_the_controls_say_is_what_compare_and_breakeven_say(
    fields: dict[str, Any], desk: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(desk, fields)
    usage = sets(
        {
            "usage.requests_per_day": fields["requests"],
            "usage.input_tokens": fields["input"],
            "usage.output_tokens": fields["output"],
            "scaling.idle_timeout_s": fields["idle"],
        }
    )
    even = answer(add_breakeven, "breakeven", capsys, *usage)
    servers = even["declared"]["servers"]
    cards = {
        card.get_attribute("data-way"): card.locator(".price").inner_text().split(" ")[0].lstrip("$").replace(",", "")
        for card in desk.locator(".card").all()
    }
    monthly, api = even["declared"]["monthly_usd"], desk.input_value("#api")
    assert (cards["on"], cards["sleeps"]) == (monthly["always on"], monthly["scale to zero"])
    assert cards["api"] == monthly[api]
    assert desk.locator("#requests-hint").inner_text() == f"{even['declared']['requests_per_month']:,} a month"
    if desk.locator("#more").get_attribute("aria-expanded") == "false":
        desk.click("#more")
        settle(desk)
    rows = desk.evaluate(
        """[...document.querySelectorAll("#offers tbody tr")].map((row) => {
          const offer = data.offers.find((one) => String(one.order) === row.dataset.order);
          const first = (cell) => cell.firstChild.textContent.replaceAll(/[$,]/g, "");
          const key = [offer.provider, offer.kind, offer.sku, offer.gpu, offer.region, offer.tier, offer.spot];
          return [key, first(row.cells[1]), first(row.cells[2])];
        })"""
    )
    always = answer(
        add_compare, "compare", capsys, "--offline", *usage, *sets({"scaling.min": servers, "scaling.max": servers})
    )
    asleep = answer(
        add_compare, "compare", capsys, "--offline", *usage, *sets({"scaling.min": 0, "scaling.max": servers})
    )
    steady, sleepy = by_offer(always), by_offer(asleep)
    assert {tuple(key) for key, _, _ in rows} == set(steady)
    for key, on, sleeping in rows:
        price, resting = steady[tuple(key)], sleepy[tuple(key)]
        assert on == (price[1] if price else "price not found")
        asked = key[1] in ("serverless", "app")
        assert sleeping == (NOTHING if not asked else resting[1] if resting else "price not found")


def test_a_control_moves_the_curves_and_the_way_back_undoes_it(desk: Any) -> None:
    line = """(name) => {
      const trace = document.getElementById("curves").data.find((one) => one.name === name);
      return [trace.x[0], trace.x.at(-1), ...trace.customdata.filter(Boolean).slice(10, 14)];
    }"""
    api = desk.input_value("#api")
    before = {name: desk.evaluate(line, name) for name in ("Always on", "Sleeps when idle", api)}
    said = desk.locator("#answer").inner_text()
    enter(desk, {"idle": 600, "output": 2000, "maintenance": 100})
    for name, points in before.items():
        assert desk.evaluate(line, name) != points, name
    assert desk.locator("#assumed").inner_text().count("changed here") == 3
    desk.click("#reset")
    settle(desk)
    assert {name: desk.evaluate(line, name) for name in before} == before
    assert desk.locator("#answer").inner_text() == said


def test_the_answer_turns_where_the_break_even_is(desk: Any) -> None:
    desk.select_option("#api", "Claude Sonnet 5.5")
    enter(desk, {"requests": 1400})
    assert desk.locator("#answer").inner_text().startswith("Pay Claude Sonnet 5.5 by the token: $166.")
    enter(desk, {"requests": 1600})
    assert desk.locator("#answer").inner_text().startswith("Rent ")
    assert desk.locator(".card.best h3").inner_text().endswith("cheapest")
    enter(desk, {"growth": 20})
    assert "Not within it in every month: Sleeps when idle" in desk.locator("#months-lead").inner_text()
    total = {
        head.inner_text(): Decimal(cell.inner_text().lstrip("$").replace(",", ""))
        for head, cell in zip(
            desk.locator("#months thead th").all()[2:], desk.locator("#months tfoot td").all()[1:], strict=True
        )
    }
    saved = total["Claude Sonnet 5.5"] - min(total["Always on"], total["Sleeps when idle"])
    assert f"saves ${saved:,} against Claude Sonnet 5.5." in desk.locator("#months-lead").inner_text()


def test_a_wrong_number_is_said_and_the_last_good_one_counts(desk: Any) -> None:
    said = desk.locator("#answer").inner_text()
    enter(desk, {"requests": "many", "hours": "900"})
    assert desk.locator("#fault").inner_text() == ("Requests a day: a whole number up to 10,000,000. Hours: 1 to 730.")
    assert desk.get_attribute("#requests", "aria-invalid") == "true"
    assert desk.locator("#answer").inner_text() == said
    enter(desk, {"requests": "2,000", "hours": "730"})
    assert desk.locator("#fault").inner_text() == ""
    assert desk.locator("#requests-hint").inner_text() == "60,833 a month"
    assert desk.said == []


def test_everything_works_by_keyboard(shown: Shown) -> None:
    page = shown.open()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "decision"
    reached: list[str] = []
    for _ in range(80):
        page.keyboard.press("Tab")
        element = page.evaluate("[document.activeElement.id, document.activeElement.tagName]")
        reached.append(element[0] or element[1])
    controls = page.evaluate(
        "[...document.querySelectorAll('#controls input, #controls select, #controls button')].map((one) => one.id)"
    )
    assert [name for name in reached if name in controls][: len(controls)] == controls
    assert "more" in reached and "SUMMARY" in reached
    page.focus("#requests-slider")
    before = page.input_value("#requests")
    page.keyboard.press("ArrowRight")
    settle(page)
    assert int(page.input_value("#requests")) >= int(before)
    page.keyboard.press("PageUp")
    settle(page)
    assert int(page.input_value("#requests")) > int(before)
    assert page.get_attribute("#requests-slider", "aria-valuetext").endswith(" requests a day")
    page.focus("#more")
    page.keyboard.press("Enter")
    settle(page)
    assert page.locator("#offers tbody tr").count() > 100
    page.locator("summary").first.focus()
    page.keyboard.press("Space")
    assert page.locator("#curves-table").is_visible()
    page.close()


INK = """async (png) => {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const { data: bytes } = context.getImageData(0, 0, image.width, image.height);
  const pixels = new Uint32Array(bytes.buffer);
  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
  return [image.width, counts.size, 1 - Math.max(...counts.values()) / pixels.length];
}"""

WIDER = """[...document.querySelectorAll("body *")].filter((one) => {
  const box = one.getBoundingClientRect();
  return box.width && box.right > innerWidth + 1 && !one.closest(".scroll, svg, .skip");
}).map((one) => one.id || one.className || one.tagName)"""


def looked_at(page: Any, size: str, desk: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert page.evaluate(WIDER) == []
    for chart in CHARTS:
        picture = page.locator(f"#{chart}").screenshot()
        width, colours, ink = desk.evaluate(INK, base64.b64encode(picture).decode())
        assert width > 280 and colours > 40 and 0.01 < ink < 0.7, chart
        assert page.locator(f"#{chart}").get_attribute("aria-label")
    width, colours, ink = desk.evaluate(INK, base64.b64encode(page.screenshot()).decode())
    assert width == SIZES[size][0] and colours > 100 and ink > 0.1


@pytest.mark.parametrize("size", list(SIZES))
def test_it_is_neither_empty_nor_wider_than_the_window_in_either_theme(size: str, shown: Shown, opened: Any) -> None:
    page = shown.open(size)
    looked_at(page, size, opened)
    colour = """getComputedStyle(document.querySelector("#curves .scatterlayer .js-line")).stroke"""
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{colour} !== {json.dumps(light)}")
    looked_at(page, size, opened)
    assert page.said == []
    page.close()


EDGES = """async (png) => {
  const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
  const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
  context.drawImage(image, 0, 0);
  return [1, image.width - 2].map((x) => {
    const { data } = context.getImageData(x, 0, 1, image.height);
    return data.filter((_, i) => i % 4 === 0).sort()[Math.floor(image.height / 2)];
  });
}"""


def test_a_table_that_goes_on_beyond_an_edge_has_a_shadow_there(shown: Shown, opened: Any) -> None:
    page = shown.open("phone")
    table = page.locator(".scroll:has(#offers)")

    def edges(scrolled: int) -> list[int]:
        """How bright it is at the left and at the right."""
        table.evaluate("(one, left) => { one.scrollLeft = left; }", scrolled)
        return opened.evaluate(EDGES, base64.b64encode(table.screenshot()).decode())

    assert [bright == 255 for bright in (*edges(0), *edges(120), *edges(9999))] == [True, *[False] * 4, True]
    page.close()


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        ("desk", "light"),
        ("phone", "dark"),
        pytest.param("desk", "dark", marks=pytest.mark.slow),
        pytest.param("phone", "light", marks=pytest.mark.slow),
    ],
)
def test_it_breaks_no_rule_of_axe(size: str, scheme: str, shown: Shown) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = shown.open(size, scheme)
    # The other tables are built alike, and axe looks at each cell.
    for inside in ("#curves-table", "#fit", "#prices details:last-child table"):
        page.locator(inside).evaluate("(one) => { one.closest('details').open = true; }")
    found = axe.run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]})
    assert found.violations_count == 0, found.generate_report()
    page.close()


def test_it_prints_to_pages_with_its_assumptions_and_without_its_controls(shown: Shown, tmp_path: Path) -> None:
    page = shown.open(scheme="dark")
    page.emulate_media(media="print")
    assert not page.locator("#controls").is_visible()
    assert page.locator("#assumed").is_visible()
    # A4 in CSS pixels, without the margins.
    page.set_viewport_size({"width": 688, "height": 1017})
    open_all = """for (const one of document.querySelectorAll("details")) one.open = true"""
    page.evaluate(open_all)
    assert (
        page.evaluate("""[...document.querySelectorAll(".scroll")].filter(
      (one) => one.scrollWidth > one.clientWidth).map((one) => one.ariaLabel)""")
        == []
    )
    page.evaluate(open_all.replace("true", "false"))
    page.emulate_media(media="screen")
    printed = page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert 8 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 40
    settle_after_print = page.evaluate("[printing.now, document.querySelectorAll('details[open]').length]")
    assert settle_after_print == [False, 0]
    page.close()


def test_a_browser_that_can_not_unpack_the_library_shows_the_tables(shown: Shown) -> None:
    page = shown.browser.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(shown.file.as_uri())
    page.wait_for_selector("html[data-state=ready][data-charts=none]", state="attached")
    assert not page.locator("#curves").is_visible()
    assert page.locator("#offers tbody tr").count() == 10
    assert page.locator("#answer").inner_text()
    page.close()


def test_a_bench_file_is_shown_and_never_run_even_where_nothing_can_be_rented(shown: Shown, tmp_path: Path) -> None:
    saved = {
        "label": "</script><img src=x onerror=alert(1)>",
        "model_id": "qwen3-4b",
        "date": "20261120-101500",
        "num_prompts": 50,
        "completed": 49,
        "max_concurrency": 10,
        "request_throughput": 1.42,
        "output_throughput": 337.46,
        "median_ttft_ms": 210.4,
        "p95_ttft_ms": 480.0,
        "median_e2el_ms": 6268.0,
        "p99_e2el_ms": 7900.0,
    }
    bench, file = tmp_path / "run.json", tmp_path / "report.html"
    bench.write_text(json.dumps(saved))
    file.write_text(
        page_text(page_facts(gather("--bench", str(bench), *sets({"hardware.gpus": "[GTX 1660]"}))), "<b>A report"),
        encoding="utf-8",
    )
    page = Shown(shown.report, file, shown.browser).open()
    row = page.locator("#bench tbody tr").inner_text()
    assert saved["label"] in row and "49 of 50" in row and "337.5" in row and "6,268" in row
    assert page.title() == "<b>A report"
    assert "No server on offer fits the model" in page.locator("#because").inner_text()
    assert "start from an example" in page.locator("#lead").inner_text()
    assert page.said == []
    page.close()
