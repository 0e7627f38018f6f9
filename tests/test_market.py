"""Live prices within one shared budget of seconds, the fallback to dated ones, and the user's own file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from providers.base import PlatformError
from providers.market import OFFLINE, age_notes, ask, dated, prices
from serving import USER_PRICES
from serving.offers import Offer
from serving.prices import COLUMNS
from serving.spec import DeploymentSpec
from tests.offers import DAY, hourly, offer

SPEC = DeploymentSpec()
LIVE = offer("runpod", "L4", rates=(replace(hourly("0.77"), source="live"),))


def answers(spec: DeploymentSpec, seconds: float) -> list[Offer]:
    return [LIVE]


def refuses(spec: DeploymentSpec, seconds: float) -> list[Offer]:
    raise PlatformError("HTTP 503 from the catalogue")


@pytest.fixture
def hangs() -> Iterator[object]:
    ended = threading.Event()

    def wait(spec: DeploymentSpec, seconds: float) -> list[Offer]:
        ended.wait(30)
        return [LIVE]

    yield wait
    ended.set()


def test_live_offers_are_taken_as_they_are() -> None:
    market = ask({"runpod": answers}, SPEC)["runpod"]
    assert market.offers == (LIVE,)
    assert market.notes == ()


def test_a_platform_that_refuses_keeps_the_dated_prices_and_says_so() -> None:
    market = ask({"runpod": refuses, "vastai": answers}, SPEC)
    assert market["runpod"].offers == dated("runpod")
    assert market["runpod"].notes == ("Live prices of runpod: HTTP 503 from the catalogue. The dated ones are shown.",)
    assert market["vastai"].offers == (LIVE,)


def test_a_platform_that_hangs_costs_no_more_than_the_shared_budget(hangs: object) -> None:
    market = ask({"runpod": hangs, "vastai": answers}, SPEC, budget_s=0.05)  # type: ignore[dict-item]
    assert market["runpod"].offers == dated("runpod")
    assert "no answer in" in market["runpod"].notes[0]


def test_offline_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OFFLINE, "1")

    def never(spec: DeploymentSpec, seconds: float) -> list[Offer]:
        raise AssertionError("a live price was asked for")

    market = ask({"runpod": never}, SPEC)["runpod"]
    assert market.offers == dated("runpod")
    assert market.notes == ()


def test_a_failed_refresh_keeps_the_old_date() -> None:
    market = ask({"runpod": refuses}, SPEC)["runpod"]
    assert all(rate.source == "snapshot" and rate.as_of for o in market.offers for rate in o.rates if rate.unit_price)


def test_prices_older_than_60_days_are_warned_about() -> None:
    assert age_notes("runpod", [offer()], DAY + timedelta(days=60)) == []
    (note,) = age_notes("runpod", [offer()], DAY + timedelta(days=61))
    assert "61 days old" in note


@pytest.fixture
def own_prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "own.csv"
    row = dict.fromkeys(COLUMNS, "") | {
        "platform": "runpod",
        "kind": "pod",
        "meter": "GPU",
        "gpu": "L4",
        "tier": "secure",
        "spot": "false",
        "bills": "running",
        "unit": "Hours",
        "value": "0.11",
        "currency": "USD",
        "url": "our contract",
        "as_of": date(2026, 11, 1).isoformat(),
        "method": "doc",
    }
    path.write_text(f"{','.join(COLUMNS)}\n{','.join(row[name] for name in COLUMNS)}\n")
    monkeypatch.setenv(USER_PRICES, str(path))
    return path


def gpu_rates(offers: tuple[Offer, ...]) -> set[tuple[str, str]]:
    return {
        (rate.source, str(rate.unit_price))
        for o in offers
        for rate in o.rates
        if (o.gpu, o.kind, o.tier, rate.meter) == ("L4", "pod", "secure", "GPU")
    }


@pytest.mark.usefixtures("own_prices")
def test_a_users_price_wins_over_dated_and_live_ones_and_is_labelled_so() -> None:
    assert gpu_rates(dated("runpod")) == {("user", "0.11")}
    assert gpu_rates(ask({"runpod": answers}, SPEC)["runpod"].offers) == {("user", "0.11")}
    assert any(price.source == "user" for price in prices())


def test_a_wrong_price_file_is_named_with_its_line(own_prices: Path) -> None:
    own_prices.write_text(own_prices.read_text().replace("0.11", "eleven"))
    with pytest.raises(PlatformError, match=r"VLLM_ANYWHERE_PRICES.*line 2"):
        prices()


def test_a_missing_price_file_is_an_error_not_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(USER_PRICES, "no/such/file.csv")
    with pytest.raises(PlatformError, match="VLLM_ANYWHERE_PRICES"):
        prices()
