"""The dated price snapshot and a user's price file."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import date, timedelta
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import pytest
from golden import check
from hypothesis import given
from hypothesis import strategies as st

from ops import cli
from serving.prices import COLUMNS, STALE_DAYS, PriceError, parse_prices, problems, snapshot, stale
from serving.prices import with_user_prices as merge

GOOD = {
    "platform": "runpod",
    "kind": "pod",
    "meter": "GPU",
    "sku": "",
    "gpu": "L4",
    "region": "",
    "tier": "secure",
    "spot": "false",
    "bills": "running",
    "unit": "Hours",
    "value": "0.49",
    "low": "",
    "high": "",
    "currency": "USD",
    "url": "https://docs.runpod.io/pods/pricing",
    "as_of": "2026-10-04",
    "method": "doc",
    "note": "",
}
TODAY = date(2026, 11, 21)


def sheet(*rows: dict[str, str]) -> str:
    return "\n".join([",".join(COLUMNS), *(",".join({**GOOD, **row}[c] for c in COLUMNS) for row in rows)]) + "\n"


def packaged() -> str:
    return (files("serving") / "data" / "prices.csv").read_text(encoding="utf-8")


def test_the_snapshot_has_nothing_to_complain_about() -> None:
    assert problems(packaged(), TODAY) == []


def test_every_snapshot_price_can_be_traced_and_is_labelled_a_snapshot() -> None:
    for price in snapshot():
        assert price.url.startswith("https://")
        assert price.as_of <= TODAY
        assert (price.currency, price.source) == ("USD", "snapshot")


def test_money_is_decimal_and_no_snapshot_price_is_zero() -> None:
    for price in snapshot():
        assert not any(isinstance(getattr(price, f.name), float) for f in fields(price))
        assert isinstance(price.value, Decimal)
        assert price.value > 0


def test_a_range_holds_its_price() -> None:
    ranged = [p for p in snapshot() if p.low is not None and p.high is not None]
    assert ranged
    assert all(p.low <= p.value <= p.high for p in ranged if p.low is not None and p.high is not None)


def test_a_good_row_has_no_problems_and_parses() -> None:
    assert problems(sheet({}), TODAY) == []
    (price,) = parse_prices(sheet({}), "user", "mine.csv")
    assert (price.value, price.low, price.tier, price.spot) == (Decimal("0.49"), None, "secure", False)
    assert (price.as_of, price.source) == (date(2026, 10, 4), "user")


FAULTS = [
    ({"url": ""}, "url: it must not be empty"),
    ({"url": "   "}, "url: it must not be empty"),
    ({"as_of": ""}, "as_of: `` is not a day such as `2026-10-04`"),
    ({"as_of": "20261004"}, "as_of: `20261004` is not a day such as `2026-10-04`"),
    ({"as_of": "2026-02-30"}, "as_of: `2026-02-30` is not a day such as `2026-10-04`"),
    ({"as_of": "2026-11-22"}, "as_of: 2026-11-22 is after today, 2026-11-21"),
    ({"platform": "aws"}, "platform: `aws` is not one of `runpod`, `vastai`, `gcp`, `modal`"),
    ({"gpu": "RTX 4091"}, "gpu: no NVIDIA GPU is known as `RTX 4091`."),
    ({"unit": "hours"}, "unit: `hours` is not one of `Hours`, `GB-Months`, `GB`, `Seconds`"),
    ({"kind": "box"}, "kind: `box` is not one of"),
    ({"tier": "any"}, "tier: `any` is not one of"),
    ({"spot": "yes"}, "spot: `yes` is not one of `true`, `false`"),
    ({"bills": "always"}, "bills: `always` is not one of"),
    ({"method": "memory"}, "method: `memory` is not one of `api`, `doc`, `transcribed`, `agreed`"),
    ({"currency": "EUR"}, "currency: `EUR` is not one of `USD`"),
    ({"meter": ""}, "meter: it must not be empty"),
    ({"value": ""}, "value: `` is not a plain decimal"),
    ({"value": "-0.1"}, "value: `-0.1` is not a plain decimal"),
    ({"value": "1e-5"}, "value: `1e-5` is not a plain decimal"),
    ({"value": "0.30000000000000004"}, "value: `0.30000000000000004` is not a plain decimal"),
    ({"value": "nan"}, "value: `nan` is not a plain decimal"),
    ({"value": "$1"}, "value: `$1` is not a plain decimal"),
    ({"low": "x"}, "low: `x` is not a plain decimal"),
    ({"low": "0.5"}, "value: low 0.5, value 0.49, high  must not fall"),
    ({"high": "0.4"}, "value: low , value 0.49, high 0.4 must not fall"),
    ({"note": "one,two"}, "it must have 18 cells"),
]


@pytest.mark.parametrize(("change", "says"), FAULTS, ids=[says for _, says in FAULTS])
def test_a_faulty_row_is_found_with_its_line_and_column(change: dict[str, str], says: str) -> None:
    found = problems(sheet({"gpu": "T4"}, change), TODAY)
    assert len(found) == 1
    assert found[0].startswith("prices.csv line 3, ")
    assert says in found[0]


def test_all_faults_are_found_at_once() -> None:
    found = problems(sheet({"url": "", "value": "-1"}, {"platform": "aws"}), TODAY)
    assert [text.split(":")[0] for text in found] == [
        "prices.csv line 2, url",
        "prices.csv line 2, value",
        "prices.csv line 3, platform",
    ]


def test_a_row_too_short_is_found() -> None:
    text = sheet({}) + "runpod,pod,GPU\n"
    assert problems(text) == ["prices.csv line 3, runpod: it must have 18 cells"]


def test_a_second_price_of_the_same_thing_is_found_and_refused() -> None:
    text = sheet({}, {"gpu": "T4"}, {"value": "0.5"})
    assert problems(text) == ["prices.csv line 4: it prices the same thing as line 2; keep one"]
    with pytest.raises(PriceError, match=r"mine\.csv line 4: it prices the same thing as line 2"):
        parse_prices(text, "user", "mine.csv")


@pytest.mark.parametrize("text", ["", "platform,price\n", sheet({}).replace("as_of,", "")])
def test_a_file_with_other_columns_is_refused_with_the_columns_that_work(text: str) -> None:
    (found,) = problems(text)
    assert "line 1: the columns must be platform,kind,meter," in found
    with pytest.raises(PriceError, match="missing"):
        parse_prices(text, "user", "mine.csv")


def test_bad_rows_are_refused_with_file_line_column_and_what_works() -> None:
    with pytest.raises(PriceError) as error:
        parse_prices(sheet({}, {"gpu": "T4", "unit": "min"}), "user", "mine.csv")
    assert str(error.value) == ("mine.csv line 3, unit: `min` is not one of `Hours`, `GB-Months`, `GB`, `Seconds`")


def test_a_date_after_today_is_not_the_parsers_business() -> None:
    assert problems(sheet({"as_of": "2999-01-01"})) == []


def test_a_file_saved_by_a_spreadsheet_parses() -> None:
    text = "\ufeff" + sheet({"note": '"one, two"'}).replace("\n", "\r\n")
    (price,) = parse_prices(text, "user", "mine.csv")
    assert price.note == "one, two"


def test_the_users_price_wins_and_keeps_its_place() -> None:
    mine = parse_prices(sheet({"value": "0.3", "url": "contract of 2026-11"}), "user", "mine.csv")
    merged = merge(snapshot(), mine)
    assert len(merged) == len(snapshot())
    changed = [(old, new) for old, new in zip(snapshot(), merged, strict=True) if old != new]
    assert [(old.gpu, old.source, new.value, new.source) for old, new in changed] == [
        ("L4", "snapshot", Decimal("0.3"), "user")
    ]


def test_a_price_of_the_users_own_may_be_agreed_and_none_of_the_snapshot_is() -> None:
    (mine,) = parse_prices(sheet({"method": "agreed", "url": "contract of 2026-11"}), "user", "mine.csv")
    assert mine.method == "agreed"
    assert not any(price.method == "agreed" for price in snapshot())


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(("prices", *argv))
    return int(ended.value.code or 0)


@pytest.mark.parametrize("width", [80, 120])
def test_people_see_this_in_a_pipe(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert run("--platform", "modal", "--offline") == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= width
    check(f"prices/modal-{width}.txt", shown.rstrip())


@pytest.mark.parametrize("longest", [6, 16])
@pytest.mark.parametrize("width", [80, 119, 120])
def test_words_are_whole_in_every_width_with_the_longest_name_that_a_platform_may_have(
    width: int, longest: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words: list[set[str]] = []
    named = [replace(price, platform=price.platform.ljust(longest, "x")) for price in snapshot()]
    monkeypatch.setattr("ops.prices.prices", lambda: named)
    for columns in (width, 300):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert run() == 0
        words.append({word.strip(",()") for word in capsys.readouterr().out.replace("─", "").split()})
    assert words[0] <= words[1]


def test_a_check_names_the_users_own_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "up.csv"
    own.write_text(sheet({"url": ""}), encoding="utf-8")
    monkeypatch.setenv("VLLM_ANYWHERE_PRICES", str(own))
    assert run("--check") == 1
    assert capsys.readouterr().out == f"{own} line 2, url: it must not be empty\n"


def test_a_users_price_is_marked_in_every_width(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "up.csv"
    own.write_text(sheet({"value": "0.3", "method": "agreed"}), encoding="utf-8")
    monkeypatch.setenv("VLLM_ANYWHERE_PRICES", str(own))
    for width in (80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        assert run("--platform", "runpod", "--offline") == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "$0.30/" in line and "L4" in line]
        assert "user" in line


def test_a_users_price_of_something_new_is_added() -> None:
    mine = parse_prices(sheet({"region": "EU-RO-1"}), "user", "mine.csv")
    assert merge(snapshot(), mine) == (*snapshot(), *mine)


@given(st.data())
def test_the_order_of_a_users_prices_does_not_matter(data: st.DataObject) -> None:
    drawn = st.builds(
        lambda price, region: replace(price, value=Decimal(7), region=region or price.region, source="user"),
        st.sampled_from(snapshot()),
        st.sampled_from(["", "moon"]),
    )
    mine = data.draw(st.lists(drawn, unique_by=lambda p: p.key, max_size=10))
    shuffled = data.draw(st.permutations(mine))
    assert set(merge(snapshot(), mine)) == set(merge(snapshot(), shuffled))
    assert {p for p in merge(snapshot(), mine) if p.source == "user"} == set(mine)


@pytest.mark.parametrize(("age", "expected"), [(0, False), (STALE_DAYS, False), (STALE_DAYS + 1, True)])
def test_a_price_is_stale_after_sixty_days(age: int, expected: bool) -> None:
    assert stale(TODAY, TODAY + timedelta(days=age)) is expected
