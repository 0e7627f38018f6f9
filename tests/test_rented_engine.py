"""What is shown and priced is what was rented, and it may run on where the market has nothing else: the real CLI, on
the emulated marketplace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulators.vastai import Servers, VastEmulator, offer_row
from engine import Project

pytestmark = pytest.mark.engine


@pytest.fixture
def market(project: Project, tmp_path: Path) -> Iterator[VastEmulator]:
    (tmp_path / "market").mkdir()
    rows = [offer_row(id, dph_base=round(0.3 + id / 100, 2)) for id in range(1, 4)]
    with VastEmulator(rows, servers=Servers(tmp_path / "market")) as market:
        project.env |= {"VAST_API_KEY": market.key, "VLLM_ANYWHERE_VASTAI_URL": market.url}
        project.config("provider", "vastai")
        yield market


def test_what_runs_is_shown_at_its_own_price_and_goes_on_when_the_market_is_bare(
    project: Project, market: VastEmulator
) -> None:
    pytest.importorskip("vastai")
    project.config("hardware.spot", "true")
    project.config("vastai.bid_usd", "0.35")
    told = words(project.up())
    assert "rented: RTX 4090, machine" in told
    bill = project.outputs()["cost"]
    assert gpu_price(bill) == "0.35"
    market.offers.append(offer_row(99, min_bid=0.05, storage_cost=0.1))
    project.config("vastai.waste_usd", "3")
    seen = words(project.preview())
    assert "it is rented already and stays" in seen and "1 to update" in seen

    market.offers.clear()
    project.config("vastai.bid_usd", "0.36")
    seen = words(project.preview())
    assert "What is rented stays" in seen and "nobody offers" in seen
    project.up()
    assert gpu_price(project.outputs()["cost"]) == "0.36"
    (one,) = market.instances.values()
    assert one.bid == 0.36
    assert "1 to update" not in project.preview()


def words(text: str) -> str:
    return " ".join(text.split())


def gpu_price(bill: dict[str, Any]) -> str:
    (rate,) = (rate for rate in bill["rented"]["rates"] if rate["meter"] == "GPU")
    assert json.dumps(rate["unit_price"]).startswith('"'), "money is text"
    return rate["unit_price"]
