"""The Billing Catalog, emulated: descriptions as research lists them, prices made up."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from providers.base import PlatformError
from providers.gcp import pricing
from providers.gcp.auth import KEY_VARIABLES, TOKEN_VARIABLE
from providers.gcp.catalog import SOURCE, Found, Sku, found_in, prices_of
from serving.offers import Offer
from serving.spec import DeploymentSpec

DAY = date(2026, 11, 21)
KEY = "AIza-never-in-a-log"


def sku(description: str, nanos: int, usage: str = "OnDemand", unit: str = "h", *tiers: int) -> dict[str, Any]:
    rates = [{"unitPrice": {"currencyCode": "USD", "units": "0", "nanos": each}} for each in (*tiers, nanos)]
    return {
        "description": description,
        "category": {"usageType": usage, "resourceFamily": "Compute"},
        "serviceRegions": ["europe-west4"],
        "pricingInfo": [{"pricingExpression": {"usageUnit": unit, "tieredRates": rates}}],
    }


CATALOGUE = [
    sku("N1 Predefined Instance Core running in Netherlands", 34_800_000),
    sku("N1 Predefined Instance Ram running in Netherlands", 4_660_000, unit="GiBy.h"),
    sku("Spot Preemptible N1 Predefined Instance Core running in Netherlands", 13_000_000, "Preemptible"),
    sku("Spot Preemptible N1 Predefined Instance Ram running in Netherlands", 1_700_000, "Preemptible", "GiBy.h"),
    sku("Nvidia Tesla T4 GPU running in Netherlands", 370_000_000),
    sku("Nvidia Tesla T4 GPU attached to Spot Preemptible VMs running in Netherlands", 180_000_000, "Preemptible"),
    sku("G2 Instance Core running in Netherlands", 27_500_000),
    sku("G2 Instance Ram running in Netherlands", 3_220_000, unit="GiBy.h"),
    sku("Nvidia L4 GPU running in Netherlands", 616_000_000),
    sku("Balanced PD Capacity in Netherlands", 111_000_000, "OnDemand", "GiBy.mo", 0),
]
OTHERS = [
    sku("Regional Balanced PD Capacity in Netherlands", 222_000_000, unit="GiBy.mo"),
    sku("Commitment v1: Nvidia Tesla T4 GPU running in Netherlands for 1 Year", 1, "Commit1Yr"),
    sku("Sole Tenancy Premium for N1 Predefined Instance Core running in Netherlands", 1),
    sku("N1 Predefined Instance Core running in Netherlands", 1, "Commit1Yr"),
    sku("Nvidia Tesla T4 GPU running in Netherlands", 1, unit="mo"),
    {"description": "Nvidia Tesla T4 GPU running in Netherlands", "category": {"usageType": "OnDemand"}},
]


def found(rows: list[dict[str, Any]] | None = None) -> list[Found]:
    return list(found_in(Sku.model_validate(row) for row in rows or [*OTHERS, *CATALOGUE, *OTHERS]))


def test_only_what_the_machines_are_made_of_is_taken() -> None:
    assert len(found()) == len(CATALOGUE)
    assert {one.value for one in found() if one.what == "T4"} == {Decimal("0.37"), Decimal("0.18")}


def test_a_free_first_tier_is_not_the_price() -> None:
    assert [one.value for one in found() if one.what == "boot disk"] == [Decimal("0.111")]


def test_another_currency_is_no_price() -> None:
    row = json.loads(json.dumps(CATALOGUE[0]).replace("USD", "EUR"))
    assert found([row]) == []


def offer(machine: str, spot: bool = False) -> Offer:
    offers = pricing.offers_at(found(), 1, DAY)
    return next(o for o in offers if (o.sku, o.region, o.spot) == (machine, "europe-west4", spot))


def test_an_n1_with_a_t4_has_live_prices_where_there_are_and_dated_ones_elsewhere() -> None:
    rates = {rate.meter: rate for rate in offer("n1-standard-4").rates}
    assert {meter for meter, rate in rates.items() if rate.source == "live"} == {"GPU", "vCPU", "memory", "boot disk"}
    assert rates["vCPU"].unit_price == Decimal("0.0348")
    assert rates["vCPU"].as_of == DAY
    assert rates["vCPU"].quantity == 4
    assert rates["external IPv4"].source == "snapshot"
    assert all(rates[meter].sustained_use for meter in ("GPU", "vCPU", "memory"))


def test_spot_has_its_own_live_prices() -> None:
    rates = {rate.meter: rate.unit_price for rate in offer("n1-standard-4", spot=True).rates}
    assert (rates["GPU"], rates["vCPU"]) == (Decimal("0.18"), Decimal("0.013"))


def test_the_l4_is_in_the_price_of_its_machine_and_counted_once() -> None:
    machine = offer("g2-standard-4")
    assert [rate.meter for rate in machine.rates if rate.bills == "running"] == ["machine", "external IPv4"]
    assert machine.rates[0].unit_price == Decimal("0.0275") * 4 + Decimal("0.00322") * 16 + Decimal("0.616")


def test_a_machine_of_which_one_part_has_no_price_keeps_the_dated_one() -> None:
    part = [one for one in found() if one.what != "G2 memory"]
    assert not [price for price in prices_of(part, DAY) if price.meter == "machine"]


@dataclass
class Catalogue:
    """The service: pages of SKUs. `status` is what it answers with."""

    pages: list[list[dict[str, Any]]]
    status: int = 200
    body: str | None = None
    asked: list[dict[str, list[str]]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Catalogue]:
    served = Catalogue([CATALOGUE[:4], OTHERS, CATALOGUE[4:]])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            served.asked.append(query)
            served.keys.append(self.headers.get("x-goog-api-key"))
            page = int(query.get("pageToken", ["0"])[0])
            more = {"nextPageToken": str(page + 1)} if page + 1 < len(served.pages) else {"nextPageToken": ""}
            self.send_response(served.status)
            self.end_headers()
            self.wfile.write((served.body or json.dumps({"skus": served.pages[page], **more})).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(pricing.URL_VARIABLE, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv(pricing.KEY_VARIABLE, KEY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setattr("providers.gcp.auth._PRODUCT", tmp_path / "no-such-file")
    monkeypatch.delenv("VLLM_ANYWHERE_OFFLINE", raising=False)
    for name in (TOKEN_VARIABLE, *KEY_VARIABLES, "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    yield served
    server.shutdown()
    server.server_close()


def test_the_catalogue_is_read_to_its_last_page_once_a_day(catalogue: Catalogue) -> None:
    first = list(pricing.live(DeploymentSpec(), 30))
    assert [page.get("pageToken") for page in catalogue.asked] == [None, ["1"], ["2"]]
    assert catalogue.keys == [KEY] * 3
    assert list(pricing.live(DeploymentSpec(), 30)) == first
    assert len(catalogue.asked) == 3
    assert any(rate.url == SOURCE and rate.source == "live" for one in first for rate in one.rates)


def test_the_key_is_in_no_address_and_in_no_file(catalogue: Catalogue, tmp_path: Path) -> None:
    list(pricing.live(DeploymentSpec(), 30))
    assert KEY not in json.dumps(catalogue.asked)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in kept] == [f"gcp-prices-{datetime.now(UTC).date()}.json"]
    assert KEY not in kept[0].read_text()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [(403, "{}", "HTTP 403"), (200, "<html>", "can't be read"), (200, '{"skus": [{"x": 1}]}', "can't be read")],
)
def test_a_catalogue_that_fails_leaves_the_dated_prices_and_says_so(
    catalogue: Catalogue, status: int, body: str, words: str
) -> None:
    catalogue.status, catalogue.body = status, body
    with pytest.raises(PlatformError, match=words):
        pricing.live(DeploymentSpec(), 30)
    market = pricing.query(DeploymentSpec(provider="gcp"))
    assert any(words in note for note in market.notes)
    assert market.offers and not any(rate.source == "live" for one in market.offers for rate in one.rates)


def test_a_catalogue_that_takes_too_long_is_given_up_and_nothing_half_read_is_kept(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    ticks = iter(range(0, 100, 3))
    with pytest.raises(PlatformError, match="to its end in 4 s"):
        pricing.refresh(4, clock=lambda: next(ticks))
    assert not list(tmp_path.rglob("*.json"))


def test_without_a_key_nothing_is_asked(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(pricing.KEY_VARIABLE)
    with pytest.raises(PlatformError, match="GOOGLE_CLOUD_API_KEY"):
        pricing.live(DeploymentSpec(), 30)
    assert catalogue.asked == []


def test_offline_nothing_is_asked_and_nothing_is_missed(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ANYWHERE_OFFLINE", "1")
    market = pricing.query(DeploymentSpec(provider="gcp"))
    assert catalogue.asked == []
    assert market.offers
    assert market.model is not None


def test_a_plan_without_credentials_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (TOKEN_VARIABLE, *KEY_VARIABLES, "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("VLLM_ANYWHERE_OFFLINE", "1")

    def notes() -> str:
        return " ".join(pricing.query(DeploymentSpec(provider="gcp")).notes)

    assert "`gcloud auth application-default login`" in notes() and "GOOGLE_PROJECT" in notes()
    monkeypatch.setenv(TOKEN_VARIABLE, "token")
    assert "credentials" not in notes()
