"""Prices with a date and a source: the snapshot in this package, and a user's file that wins over it.

`data/prices.csv` holds one row a price. A cell that is left empty means "any": no `sku` is every machine of that
platform and kind, no `gpu` every GPU, no `region` everywhere, no `tier` every tier.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Literal, cast, get_args

from serving.gpus import PLATFORMS, UnknownGpu, gpu
from serving.offers import Bills, Kind, Tier, Unit
from serving.tables import additions, data_text

STALE_DAYS = 60
"""A price older than this many days is shown with a warning."""

Method = Literal["api", "doc", "transcribed", "agreed"]
"""How a price was obtained: from an answer of the platform's API, its documentation, somebody's dated copy of it, or an
agreement with the platform, which only a user's own file can tell of."""

COLUMNS = (
    "platform",
    "kind",
    "meter",
    "sku",
    "gpu",
    "region",
    "tier",
    "spot",
    "bills",
    "unit",
    "value",
    "low",
    "high",
    "currency",
    "url",
    "as_of",
    "method",
    "note",
)

Key = tuple[str, str, str, str, str, str, str, bool]


class PriceError(ValueError):
    """A row can't be used. The text says file, line, column, the value, and what would work."""


@dataclass(frozen=True, slots=True)
class Price:
    """One row: what a platform asks for one unit of one meter.

    Attributes:
        meter: what is billed, in a word or two: `GPU`, `machine`, `vCPU`, `boot disk`.
        sku: the platform's own name of the machine or pool that the price is for; "" for every one.
        gpu: the GPU catalogue's name where the price is a GPU's (or a machine's with it), else "".
        region: the platform's own name of a region; "" for everywhere.
        tier: "" for every tier.
        value: US dollars for one `unit`, before discounts and tax.
        low, high: the range of a price that isn't fixed.
        as_of: the day on which it was true.
    """

    platform: str
    kind: Kind
    meter: str
    sku: str
    gpu: str
    region: str
    tier: Tier | Literal[""]
    spot: bool
    bills: Bills
    unit: Unit
    value: Decimal
    low: Decimal | None
    high: Decimal | None
    currency: str
    url: str
    as_of: date
    method: Method
    note: str
    source: Literal["snapshot", "user"]

    @property
    def key(self) -> Key:
        """What the price is of. Two prices with one key are of the same thing."""
        return (self.platform, self.kind, self.meter, self.sku, self.gpu, self.region, self.tier, self.spot)


@cache
def snapshot() -> tuple[Price, ...]:
    """The prices that this version of the package came with."""
    name = "prices.csv"
    texts = ((name, data_text(name)), *additions(name))
    return tuple(price for file, text in texts for price in parse_prices(text, "snapshot", file))


def parse_prices(text: str, source: Literal["snapshot", "user"], name: str) -> tuple[Price, ...]:
    """The prices of a CSV with the columns of `data/prices.csv`, in the file's order.

    Raises:
        PriceError: every faulty row, one a line, with `name` as the file.
    """
    rows = _rows(text, name)
    complaints = [f"{name} line {line}, {fault}" for line, row in rows for fault in _faults(row)]
    if complaints:
        raise PriceError("\n".join(complaints))
    prices = tuple(_price(row, source) for _, row in rows)
    twice = list(_twice([line for line, _ in rows], prices))
    if twice:
        raise PriceError("\n".join(f"{name} {text}" for text in twice))
    return prices


def with_user_prices(prices: Sequence[Price], user: Sequence[Price]) -> tuple[Price, ...]:
    """`prices`, where a user's price replaces the one of the same thing, and the rest of the user's after them."""
    theirs = {price.key: price for price in user}
    kept = tuple(theirs.pop(price.key, price) for price in prices)
    return (*kept, *theirs.values())


def stale(as_of: date, today: date) -> bool:
    """Whether a price of that day is older than `STALE_DAYS`."""
    return (today - as_of).days > STALE_DAYS


def problems(text: str, today: date | None = None, name: str = "prices.csv") -> list[str]:
    """Everything that is wrong with a price file, one sentence each; empty for a good one.

    Args:
        text: the CSV.
        today: dates after it are refused; None skips that check.
        name: the file, for the sentences.
    """
    try:
        rows = _rows(text, name)
    except PriceError as error:
        return [str(error)]
    found: list[str] = []
    good: list[tuple[int, Price]] = []
    for line, row in rows:
        faults = list(_faults(row))
        found.extend(f"{name} line {line}, {fault}" for fault in faults)
        if not faults:
            good.append((line, _price(row, "snapshot")))
    for line, price in good:
        if today is not None and price.as_of > today:
            found.append(f"{name} line {line}, as_of: {price.as_of} is after today, {today}")
    found.extend(f"{name} {text}" for text in _twice([line for line, _ in good], [price for _, price in good]))
    return found


def _rows(text: str, name: str) -> list[tuple[int, dict[str, str]]]:
    """Line number -> cells. A row with too few or too many cells keeps its faults for `_faults`."""
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), restkey="", restval=None)
    columns = tuple(reader.fieldnames or ())
    if columns != COLUMNS:
        missing = [c for c in COLUMNS if c not in columns] or "none"
        raise PriceError(f"{name} line 1: the columns must be {','.join(COLUMNS)}; missing: {missing}")
    return [(reader.line_num, cast("dict[str, str]", row)) for row in reader]


_KINDS, _TIERS, _BILLS, _UNITS, _METHODS = (get_args(t) for t in (Kind, Tier, Bills, Unit, Method))
_ONE_OF: Mapping[str, tuple[str, ...]] = {
    "platform": PLATFORMS,
    "kind": _KINDS,
    "tier": ("", *_TIERS),
    "spot": ("true", "false"),
    "bills": _BILLS,
    "unit": _UNITS,
    "currency": ("USD",),
    "method": _METHODS,
}
_DECIMAL = re.compile(r"\d{1,9}(\.\d{1,10})?")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def _faults(row: Mapping[str, str | None]) -> Iterator[str]:
    """What is wrong with a row: `column: value, and what works`."""
    if "" in row or None in row.values():
        yield f"{row.get('platform')}: it must have {len(COLUMNS)} cells"
        return
    cells = cast("Mapping[str, str]", row)
    for column, allowed in _ONE_OF.items():
        if cells[column] not in allowed:
            yield f"{column}: `{cells[column]}` is not one of {', '.join(f'`{a}`' for a in allowed)}"
    for column in ("meter", "url"):
        if not cells[column].strip():
            yield f"{column}: it must not be empty"
    if cells["gpu"]:
        try:
            gpu(cells["gpu"])
        except UnknownGpu as error:
            yield f"gpu: {error}"
    for column in ("value", "low", "high"):
        if not (cells[column] or column == "value") or _DECIMAL.fullmatch(cells[column]):
            continue
        yield f"{column}: `{cells[column]}` is not a plain decimal of US dollars with up to 10 places, such as `0.31`"
    if not _is_day(cells["as_of"]):
        yield f"as_of: `{cells['as_of']}` is not a day such as `2026-10-04`"
    amounts = [Decimal(cells[c]) for c in ("low", "value", "high") if _DECIMAL.fullmatch(cells[c])]
    if amounts != sorted(amounts):
        yield f"value: low {cells['low']}, value {cells['value']}, high {cells['high']} must not fall"


def _is_day(text: str) -> bool:
    if not _DAY.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _price(row: Mapping[str, str], source: Literal["snapshot", "user"]) -> Price:
    """A price from a row without faults."""
    return Price(
        platform=row["platform"],
        kind=cast("Kind", row["kind"]),
        meter=row["meter"],
        sku=row["sku"],
        gpu=row["gpu"],
        region=row["region"],
        tier=cast("Tier", row["tier"]),
        spot=row["spot"] == "true",
        bills=cast("Bills", row["bills"]),
        unit=cast("Unit", row["unit"]),
        value=Decimal(row["value"]),
        low=Decimal(row["low"]) if row["low"] else None,
        high=Decimal(row["high"]) if row["high"] else None,
        currency=row["currency"],
        url=row["url"],
        as_of=date.fromisoformat(row["as_of"]),
        method=cast("Method", row["method"]),
        note=row["note"],
        source=source,
    )


def _twice(lines: Sequence[int], prices: Sequence[Price]) -> Iterator[str]:
    first: dict[Key, int] = {}
    for line, price in zip(lines, prices, strict=True):
        if price.key in first:
            yield f"line {line}: it prices the same thing as line {first[price.key]}; keep one"
        first.setdefault(price.key, line)
