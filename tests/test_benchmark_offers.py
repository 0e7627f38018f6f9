"""The benchmark of the ranking: all three tools see the same rows, and their answers are the same."""

from __future__ import annotations

import csv
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from serving.gpus import gpu
from serving.rank import rank, shortlist
from tests.offers import spec

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from support import offer_rows, peer

pytestmark = pytest.mark.heavy

ROWS = offer_rows.made_up(300)


def ours(*, metered: bool = False) -> list[str]:
    market = offer_rows.offers(ROWS, metered=metered)
    return [one.offer.sku for one in shortlist(offer_rows.SPEC, offer_rows.MODEL, market)]


def test_our_offers_are_the_rows_and_the_peers_read_the_same_ones(tmp_path: Path) -> None:
    offer_rows.write(ROWS, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    market = offer_rows.offers(ROWS)
    assert [(o.sku, o.gpu, o.gpu_count, o.country, o.rates[0].unit_price) for o in market] == [
        (row["sku"], row["gpu"], int(row["gpu_count"]), row["country"], Decimal(row["price"])) for row in read
    ]
    assert all((row["gpuhunt"], int(row["memory_gb"])) == offer_rows.GPUS[row["gpu"]] for row in read)
    assert len({row["price"] for row in read}) == len(ROWS)


def test_our_answer_is_the_one_to_the_question_that_the_peers_are_asked() -> None:
    needs = offer_rows.needs()
    by_price = sorted(
        (row.price, row.sku)
        for row in ROWS
        if row.gpu_count == 1
        and row.memory_gb >= needs.memory_gb
        and gpu(row.gpu).compute_capability >= needs.capability
    )
    assert 20 < len(by_price) < 100
    assert ours() == [sku for _, sku in by_price]


def test_disk_and_traffic_cost_all_rows_the_same_and_leave_their_order() -> None:
    assert ours(metered=True) == ours()
    costs = {
        metered: rank(offer_rows.SPEC, offer_rows.MODEL, offer_rows.offers(ROWS, metered=metered))[0].cost
        for metered in (False, True)
    }
    assert costs[True] > costs[False]


def test_a_question_that_memory_and_capability_cannot_ask_is_refused() -> None:
    with pytest.raises(ValueError, match="do not tell which GPUs fit"):
        # A request of that length fits on the 16 GB of an RTX A4000, and not on those of a T4.
        offer_rows.needs(spec(model={"max_len": 32_768}))


@pytest.mark.skipif(not peer.INSTALLED.exists(), reason="python benchmarks/offers.py installs the peers")
@pytest.mark.parametrize("name", peer.PEERS)
def test_a_peer_agrees_on_the_cheapest(name: str, tmp_path: Path) -> None:
    offer_rows.write(ROWS, tmp_path / "rows.csv")
    needs = offer_rows.needs()
    process = peer.Peer(name, peer.peers_python(), tmp_path / "rows.csv", needs, tmp_path)
    try:
        theirs = process.names()
    finally:
        process.close()
    assert theirs == (ours()[:1] if name == "SkyPilot" else ours())
