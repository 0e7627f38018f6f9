"""`vllm-anywhere prices`: the dated prices that estimates rest on, with their sources and age."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from ops.stack import OpsError
from ops.text import show, show_json
from providers.base import PlatformError
from providers.market import offline, prices
from serving import USER_PRICES
from serving.prices import STALE_DAYS, Price, problems, stale
from serving.report import unit_dollars
from serving.tables import additions, data_text

WIDE = 120
"""Columns of a terminal from which on a price's kind, meter, terms and source have a column each."""
_NAME = 12
"""Letters of a platform's name for which that is enough; each more takes a column more."""

_EPILOG = f"""A price file of your own wins over these: a CSV with the same columns (`vllm-anywhere prices --columns`),
named by the environment variable {USER_PRICES}. Its rows are labelled `user`."""


def add_prices(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("prices", help="the prices that estimates use, with source and age", epilog=_EPILOG)
    parser.add_argument("--check", action="store_true", help="fail on a row without source or date, or a wrong one")
    parser.add_argument("--columns", action="store_true", help="the columns of a price file, and an example row")
    parser.add_argument("--platform", help="only prices of this platform")
    parser.add_argument("--offline", action="store_true", help="dates without ages: the same answer every day")
    parser.add_argument("--json", action="store_true", help="one JSON document, for programs")
    parser.set_defaults(run=list_prices)


def list_prices(args: argparse.Namespace) -> int:
    """Print the prices, or check their files. Returns 1 when a check finds something."""
    if args.columns:
        header, first = data_text("prices.csv").splitlines()[:2]
        print(f"{header}\n{first}")
        return 0
    today = None if args.offline or offline() else date.today()
    if args.check:
        return _check(today or date.today(), as_json=args.json)
    try:
        found = [price for price in prices() if not args.platform or price.platform == args.platform]
    except PlatformError as error:
        raise OpsError(str(error)) from None
    if not found:
        platforms = sorted({price.platform for price in prices()})
        raise OpsError(f"there are no prices of {args.platform}; there are of {', '.join(platforms)}")
    if args.json:
        show_json([_facts(price, today) for price in found])
    else:
        show([_Listing(found, today), _summary(found, today)])
    return 0


def _packaged() -> dict[str, str]:
    """The price files that come with this version: name -> text."""
    return {"prices.csv": data_text("prices.csv"), **dict(additions("prices.csv"))}


def _check(today: date, *, as_json: bool) -> int:
    texts = _packaged()
    if own := os.environ.get(USER_PRICES):
        try:
            texts[own] = Path(own).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise OpsError(f"the price file of {USER_PRICES} can't be read: {error}") from None
    wrong = [problem for name, text in texts.items() for problem in problems(text, today, name)]
    if as_json:
        show_json({"ok": not wrong, "problems": wrong})
    else:
        rows = sum(len(text.splitlines()) - 1 for text in texts.values())
        print("\n".join(wrong) or f"{rows} prices, each with source and date.")
    return 1 if wrong else 0


def _age(price: Price, today: date | None) -> str:
    return str(price.as_of) if today is None else f"{price.as_of} ({(today - price.as_of).days} d)"


@dataclass(frozen=True)
class _Listing:
    """The prices as a table. Where there is little room, three columns become one and the source is left out."""

    found: Sequence[Price]
    today: date | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        longer = max(0, max(len(price.platform) for price in self.found) - _NAME)
        yield self._wide() if options.max_width >= WIDE + longer else self._narrow()

    def _wide(self) -> Table:
        table = _table("platform", "kind", "meter", "what", "price", "as of", "source")
        for price in self.found:
            what, age = ", ".join(_terms(price)), _age(price, self.today)
            table.add_row(price.platform, price.kind, price.meter, what, _each(price), age, _source(price))
        return table

    def _narrow(self) -> Table:
        table = _table("platform", "what", "price", "as of")
        for price in self.found:
            yours = [price.source] if price.source == "user" else []
            what = " ".join((price.kind, ", ".join((price.meter, *_terms(price), *yours))))
            table.add_row(price.platform, what, _each(price), _age(price, self.today))
        return table


_LONGEST_WORD = {"what": len("europe-central2,"), "meter": len("download")}
"""Columns that wrap between words, and what they need so that no word is broken."""


def _table(*names: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in names:
        least = _LONGEST_WORD.get(name)
        table.add_column(name, "", justify="right" if name == "price" else "left", no_wrap=not least, min_width=least)
    return table


def _terms(price: Price) -> list[str]:
    terms = [price.gpu or price.sku, price.region, price.tier, "spot" if price.spot else ""]
    return [text for text in terms if text]


def _each(price: Price) -> str:
    return f"{unit_dollars(price.value)}/{price.unit}"


def _source(price: Price) -> str:
    return "user" if price.source == "user" else price.method


def _summary(found: Sequence[Price], today: date | None) -> str:
    dates = [price.as_of for price in found]
    old = 0 if today is None else sum(stale(day, today) for day in dates)
    warning = f" {old} are more than {STALE_DAYS} days old." if old else ""
    return f"{len(found)} prices, from {min(dates)} to {max(dates)}.{warning} `--json` has each one's address."


def _facts(price: Price, today: date | None) -> dict[str, Any]:
    return {
        "platform": price.platform,
        "kind": price.kind,
        "meter": price.meter,
        "sku": price.sku,
        "gpu": price.gpu,
        "region": price.region,
        "tier": price.tier,
        "spot": price.spot,
        "unit": price.unit,
        "price": str(price.value),
        "low": None if price.low is None else str(price.low),
        "high": None if price.high is None else str(price.high),
        "currency": price.currency,
        "url": price.url,
        "as_of": price.as_of.isoformat(),
        "age_days": None if today is None else (today - price.as_of).days,
        "obtained": price.method,
        "source": price.source,
        "note": price.note,
    }
