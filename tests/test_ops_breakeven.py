"""`vllm-anywhere breakeven` as people run it. What is rented is made up here; no price is asked for."""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ET
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import ops.breakeven
from ops.breakeven import add_breakeven, fitting_offers
from ops.stack import OpsError
from serving.offers import Offer, Rate
from serving.spec import DeploymentSpec

DATA = Path(__file__).parent / "data"
DAY = date(2026, 6, 8)
POD = Offer(
    platform="runpod",
    kind="pod",
    sku="NVIDIA RTX A4000",
    gpu="RTX A4000",
    gpu_count=1,
    region="EU-RO-1",
    country="RO",
    tier="secure",
    spot=False,
    rates=(
        Rate("GPU", "Hours", Decimal("0.25"), "snapshot", "", DAY),
        Rate("disk", "GB-Months", Decimal("0.10"), "snapshot", "", DAY, bills="kept"),
    ),
)
FLEX = Offer(
    platform="runpod",
    kind="serverless",
    sku="AMPERE_16",
    gpu="RTX A4000",
    gpu_count=1,
    region="",
    country="",
    tier="secure",
    spot=False,
    rates=(Rate("worker", "Seconds", Decimal("0.00016"), "snapshot", "", DAY, bills="awake"),),
)


def run(*args: str) -> int:
    parser = argparse.ArgumentParser()
    add_breakeven(parser.add_subparsers())
    parsed = parser.parse_args(["breakeven", *args])
    return parsed.run(parsed)


@pytest.fixture
def rented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops.breakeven, "fitting_offers", lambda spec, platform: (POD, FLEX))  # pyright: ignore


def answer(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert run(*args, "--json") == 0
    return json.loads(capsys.readouterr().out)


def above(facts: dict[str, Any], name: str, style: str = "always on") -> dict[str, Any] | None:
    return next(one for one in facts["apis"] if one["name"] == name)["self_hosting_cheaper_above"][style]


@pytest.mark.usefixtures("rented")
@pytest.mark.parametrize("width", [80, 120])
def test_people_see_this_in_a_pipe(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert run("--set", "usage.requests_per_day=1000", "--cached-tokens", "500", "--maintenance", "50") == 0
    shown = capsys.readouterr().out
    assert shown == (DATA / f"breakeven_{width}.txt").read_text(encoding="utf-8")
    assert max(map(len, shown.splitlines())) <= width
    assert "\x1b" not in shown


def test_the_studys_comparison_comes_out_without_its_cache(capsys: pytest.CaptureFixture[str]) -> None:
    facts = answer(capsys, "--monthly", "248", "--maintenance", "50", "--cached-tokens", "500")
    assert above(facts, "Claude Sonnet 4.5") == {"requests_per_month": 66_222, "servers": 1, "monthly_usd": "298.00"}
    assert not any(one["prompt_cached"] for one in facts["apis"] if "4.5" in one["name"])
    assert any("Claude Sonnet 4.5: not cached below 1,024 tokens" in note for note in facts["notes"])


@pytest.mark.usefixtures("rented")
def test_a_long_prompt_that_stays_the_same_is_cached(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--input-tokens", "6000", "--output-tokens", "100")
    plain, cached = answer(capsys, *asked), answer(capsys, *asked, "--cached-tokens", "5000")
    for name in ("Claude Sonnet 4.5", "Claude Haiku 4.5", "Claude Opus 5.5"):
        before, after = above(plain, name), above(cached, name)
        assert before is not None
        assert after is not None
        assert after["requests_per_month"] > before["requests_per_month"]


@pytest.mark.usefixtures("rented")
def test_a_users_price_is_labelled_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = tmp_path / "apis.csv"
    table.write_text("name,input_per_m,output_per_m\nClaude Opus 4.5,0.01,0.02\nMine,2,8\n", encoding="utf-8")
    facts = answer(capsys, "--apis", str(table))
    sources = {one["name"]: one["price_source"] for one in facts["apis"]}
    assert sources["Mine"] == sources["Claude Opus 4.5"] == "user"
    assert sources["Claude Sonnet 4.5"] == "snapshot"
    run("--apis", str(table), "--api", "mine")
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  Mine")]
    assert row.endswith("user")


def test_a_wrong_table_names_its_file_and_line(tmp_path: Path) -> None:
    table = tmp_path / "apis.csv"
    table.write_text("name,input_per_m,output_per_m\nMine,free,8\n", encoding="utf-8")
    with pytest.raises(OpsError, match=r"apis\.csv can't be used: line 2, input_per_m = free"):
        run("--monthly", "1", "--apis", str(table))
    with pytest.raises(OpsError, match=r"nowhere\.csv can't be used"):
        run("--monthly", "1", "--apis", str(tmp_path / "nowhere.csv"))


def test_an_api_that_nobody_knows_is_refused_with_those_there_are() -> None:
    with pytest.raises(OpsError, match=r"no API is known as gpt; there are: .*Claude Sonnet 4\.5"):
        run("--monthly", "1", "--api", "gpt")


def test_nothing_that_fits_says_which_command_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops.breakeven, "fitting_offers", lambda spec, platform: ())  # pyright: ignore
    with pytest.raises(OpsError, match=r"`vllm-anywhere compare` says why.*--monthly"):
        run()


@pytest.mark.usefixtures("rented")
def test_a_chart_without_some_apis_says_which_and_why(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = "Drawn: 3 of 6 APIs, the cheapest, the middle and the dearest a request"
    assert run("--svg", str(tmp_path / "chart.svg")) == 0
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in (tmp_path / "chart.svg").read_text(encoding="utf-8")
    assert run("--api", "sonnet") == 0
    assert "Drawn:" not in capsys.readouterr().out


@pytest.mark.usefixtures("rented")
def test_a_month_of_the_declared_load_is_priced_for_every_api(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--set", "usage.requests_per_day=1000") == 0
    (sentence,) = [line for line in " ".join(capsys.readouterr().out.split()).split(". ") if "month of that" in line]
    assert sentence.count("Claude") == 6


@pytest.mark.usefixtures("rented")
def test_the_chart_is_written_as_svg(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "chart.svg"
    assert run("--svg", str(path)) == 0
    assert str(path) in capsys.readouterr().err
    root = ET.parse(path).getroot()
    described = next(child.text for child in root if child.get("id") == "desc")
    assert described is not None
    assert "Claude Sonnet 4.5, $0.0045 a request, is undercut by always on above 41,888 requests" in described
    names = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"always on", "scale to zero", "Claude Haiku 5.5", "requests a month"} <= names


def test_a_folder_that_is_not_there_is_no_place_for_a_chart(tmp_path: Path) -> None:
    with pytest.raises(OpsError, match="can't be written"):
        run("--monthly", "1", "--svg", str(tmp_path / "none" / "chart.svg"))


@pytest.mark.usefixtures("rented")
def test_a_declared_load_is_checked_against_the_servers_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--set", "usage.requests_per_day=100000", "--tokens-per-s", "100", "--peak", "5")
    facts = answer(capsys, *asked)
    monthly = facts["declared"].pop("monthly_usd")
    assert monthly["always on"] is None
    assert monthly["Claude Sonnet 4.5"] == "13687.50"
    assert facts["declared"] == {
        "requests_per_month": 3_041_667,
        "mean_tokens_per_s": "231.48",
        "peak_tokens_per_s": "1157.41",
        "servers": 12,
    }
    assert facts["one_server_answers"] == 262_800
    assert run(*asked) == 0
    shown = capsys.readouterr().out
    assert "231.5 tokens/s on average, 1,157.4 at peak: 12 servers." in shown
    assert "Self-hosting is not compared beyond 8 servers." in shown


@pytest.mark.usefixtures("rented")
def test_the_declared_load_is_priced_with_the_servers_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    monthly = answer(capsys, "--set", "usage.requests_per_day=100000")["declared"]["monthly_usd"]
    assert monthly["always on"] == str(3 * Decimal("188.50"))
    assert monthly["Claude Haiku 5.5"] == "593.13"
    assert Decimal(monthly["scale to zero"]) < 3 * Decimal("420.48")


@pytest.mark.usefixtures("rented")
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--output-tokens", "10000000"), "One server answers up to 22 requests"),
        (("--output-tokens", "10000000", "--tokens-per-s", "0.01"), "One server answers up to 0 requests"),
        (("--monthly", "0"), "always"),
        (("--monthly", "248", "--peak", "1"), "1,271,794"),
        (("--set", "usage.requests_per_day=1000000000"), "Self-hosting is not compared beyond 8 servers"),
        (("--set", "usage.requests_per_day=0"), "The declared 0 requests a month"),
        (("--input-tokens", "10000000", "--cached-tokens", "10000000"), "a request"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_odd_questions_get_an_answer_that_fits(
    args: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(*args) == 0
    shown = capsys.readouterr().out
    assert said in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.usefixtures("rented")
def test_an_api_that_costs_nothing_is_never_beaten(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = tmp_path / "apis.csv"
    table.write_text("name,input_per_m,output_per_m\nGift,0,0\n", encoding="utf-8")
    assert above(answer(capsys, "--apis", str(table), "--api", "gift"), "Gift") is None
    assert run("--apis", str(table), "--api", "gift") == 0
    assert "never" in capsys.readouterr().out


@pytest.mark.usefixtures("rented")
def test_a_faster_server_makes_its_tokens_cheaper(capsys: pytest.CaptureFixture[str]) -> None:
    slow, fast = (
        Decimal(answer(capsys, "--tokens-per-s", speed)["hosting"][0]["usd_per_million_tokens"])
        for speed in ("100", "200")
    )
    assert abs(fast * 2 - slow) <= Decimal("0.0002")


@pytest.mark.usefixtures("rented")
def test_a_measured_speed_needs_no_excuse(capsys: pytest.CaptureFixture[str]) -> None:
    assumed, measured = answer(capsys)["notes"], answer(capsys, "--tokens-per-s", "500")["notes"]
    assert any("of its memory bandwidth the RTX A4000 has 75%" in note for note in assumed)
    assert not any("bandwidth" in note for note in measured)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--monthly", "-1"),
        ("--monthly", "much"),
        ("--maintenance", "nan"),
        ("--peak", "0.5"),
        ("--tokens-per-s", "inf"),
        ("--input-tokens", "1.5"),
        ("--output-tokens", "0"),
    ],
)
def test_a_wrong_number_is_wrong_usage(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        run(option, value)
    assert exited.value.code == 2
    assert value in capsys.readouterr().err


def test_what_is_rented_comes_from_the_dated_prices_and_fits() -> None:
    offers = fitting_offers(DeploymentSpec())
    assert {offer.kind for offer in offers} >= {"pod", "serverless"}
    assert all(rate.unit_price is not None for offer in offers for rate in offer.rates)
    assert {offer.platform for offer in fitting_offers(DeploymentSpec(), "runpod")} == {"runpod"}


def test_machines_with_as_many_gpus_as_the_spec_asks_for_are_rented() -> None:
    spec = DeploymentSpec.model_validate({"hardware": {"gpu_count": 2}})
    assert {offer.gpu_count for offer in fitting_offers(spec)} == {2}


def test_a_model_that_nobody_knows_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(OpsError, match=r"vllm-anywhere:model\.name = acme/unheard-of"):
        run("--set", "model.name=acme/unheard-of")
