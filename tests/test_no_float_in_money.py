"""Money is Decimal from end to end: no float in the source of a price path, none in what comes out of it."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from test_cost_properties import assumptions, offers, specs

from serving.cost import Assumptions, Estimator, boot_cost, estimate, stopped_cost
from serving.offers import Offer
from serving.prices import snapshot
from serving.scale_to_zero import Awake
from serving.snapshot import snapshot_offers
from serving.spec import DeploymentSpec

ROOT = Path(__file__).parent.parent

MONEY = [
    f"serving/{name}.py"
    for name in (
        "apis",
        "breakeven",
        "budget",
        "cost",
        "gateway_vm",
        "lines",
        "money",
        "offers",
        "prices",
        "quote",
        "rank",
        "rented",
        "report",
        "snapshot",
        "tariff",
    )
]
"""Modules that carry amounts."""

TIMES = {
    ("serving/cost.py", "_seconds"): "mean workers, which become whole seconds",
    ("serving/breakeven.py", "_switch"): "a rate of requests, from seconds and a ratio",
}
"""Functions of those modules that may handle floats, and the times that these are."""

AMOUNT = re.compile(r"price|cost|usd|dollar|monthly|hourly|listed|dph", re.IGNORECASE)
"""Names of money, in any module."""

PACKAGES = ("serving", "providers", "infra", "ops")


def is_float(node: ast.AST) -> bool:
    literal = isinstance(node, ast.Constant) and isinstance(node.value, float)
    named = isinstance(node, ast.Name) and node.id == "float"
    module = isinstance(node, ast.Import) and any(name.name in ("math", "statistics") for name in node.names)
    function = isinstance(node, ast.ImportFrom) and node.module in ("math", "statistics")
    return literal or named or module or function


def floats(source: str) -> Iterator[tuple[str, int]]:
    """The function, "" outside of any, and the line of each float: a literal, the name, a module that returns them."""

    def within(node: ast.AST, function: str) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_float(child):
                yield function, getattr(child, "lineno", 0)
            yield from within(child, child.name if named else function)

    return within(ast.parse(source), "")


def float_amounts(source: str) -> Iterator[tuple[str, int]]:
    """Names of money whose annotation allows a float, with their lines."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.AnnAssign(target=ast.Name(id=name) | ast.Attribute(attr=name), annotation=kind):
                pass
            case ast.arg(arg=name, annotation=ast.expr() as kind):
                pass
            case ast.FunctionDef(name=name, returns=ast.expr() as kind):
                pass
            case _:
                continue
        parts = {part.id for part in ast.walk(kind) if isinstance(part, ast.Name)}
        # What a function takes besides may well be seconds.
        if AMOUNT.search(name) and "float" in parts and "Callable" not in parts:
            yield name, node.lineno


@pytest.mark.parametrize("path", MONEY)
def test_no_float_is_in_a_module_that_carries_money(path: str) -> None:
    found = [(where, line) for where, line in floats((ROOT / path).read_text("utf-8")) if (path, where) not in TIMES]
    assert not found


@pytest.mark.parametrize(("path", "function"), TIMES)
def test_an_exception_is_still_needed(path: str, function: str) -> None:
    assert function in {where for where, _ in floats((ROOT / path).read_text("utf-8"))}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_amount_is_annotated_as_a_float(package: str) -> None:
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    found = {str(path.relative_to(ROOT)): list(float_amounts(path.read_text("utf-8"))) for path in modules}
    assert not {path: names for path, names in found.items() if names}


@pytest.mark.parametrize(
    "source",
    [
        "tax = 0.19",
        "def f(x): return float(x)",
        "price: float",
        "def f() -> float | None: ...",
        "import math",
        "from statistics import mean",
        "class A:\n    def f(self, x=1e3): ...",
    ],
)
def test_the_scan_sees_floats(source: str) -> None:
    assert list(floats(source))


@pytest.mark.parametrize(
    "source",
    ["price: float", "def f(list_price: float | None): ...", "def monthly_cost() -> float: ...", "self.usd: float = 1"],
)
def test_the_scan_sees_amounts_that_are_floats(source: str) -> None:
    assert list(float_amounts(source))
    assert not list(float_amounts(source.replace("float", "Decimal")))


PLAIN = (str, int, bool, date, type(None), Decimal)


def values(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in reach: of fields and properties, of tuples, lists and dictionaries."""
    if is_dataclass(value):
        names = [field.name for field in fields(value)]
        names += [name for name, _ in inspect.getmembers(type(value), lambda one: isinstance(one, property))]
        for name in names:
            yield from values(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from values(one, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            yield from values(one, f"{path}[{index}]")
    else:
        yield path, value


def strange(value: Any) -> list[str]:
    return [path for path, one in values(value) if isinstance(one, float) or not isinstance(one, PLAIN)]


@given(specs(), offers(), assumptions)
def test_no_float_comes_out_of_an_estimate(spec: DeploymentSpec, offer: Offer, assumed: Assumptions) -> None:
    found = estimate(spec, offer, assumed)
    assert not strange(found)
    assert not strange(found.span)
    assert not strange(Estimator(spec, assumed).totals(offer))
    for amount in (found.span.low, found.monthly, found.hourly, found.listed, found.baseline, found.usage):
        assert type(amount) is Decimal
    for amount in (
        found.peak_hourly,
        *(line.monthly for line in found.lines),
        *(line.list_cost for line in found.lines),
    ):
        assert amount is None or type(amount) is Decimal
    for amount in (stopped_cost(spec, offer), boot_cost(spec, offer, assumed)):
        assert amount is None or type(amount) is Decimal


@given(specs(), offers(), assumptions)
def test_no_number_in_the_stack_output_is_a_float_when_it_is_read_again(
    spec: DeploymentSpec, offer: Offer, assumed: Assumptions
) -> None:
    found = estimate(spec, offer, assumed)
    assert not strange(json.loads(json.dumps(found.as_output())))
    assert not strange([line.focus() for line in found.lines])


def test_no_price_of_the_snapshot_is_a_float() -> None:
    prices = list(snapshot())
    assert prices
    assert not strange(prices)
    assert not strange(snapshot_offers(prices))


def test_the_walk_sees_a_float() -> None:
    assert strange([Awake(idle=0.5)])[:2] == ["[0].answering", "[0].idle"]
