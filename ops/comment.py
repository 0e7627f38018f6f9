"""`vllm-anywhere comment`: what `pulumi preview --json` says, as Markdown for a pull request."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, Field

from ops.stack import OpsError, pulumi_command
from serving import REPORT
from serving.report import UNITS, dollars, shown_quantity, signed, unit_dollars

_DEPLOYMENT = "vllm-anywhere:index:Deployment"
_HOW = f"`{REPORT}=json pulumi preview --json -s STACK | vllm-anywhere comment`"


class Message(BaseModel):
    """One diagnostic of a preview."""

    urn: str = ""
    message: str = ""
    severity: str = ""


class _Preview(BaseModel):
    """What of `pulumi preview --json` is read."""

    diagnostics: list[Message] = []
    changes: dict[str, int] = Field(default={}, alias="changeSummary")


def add_comment(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser(
        "comment",
        help="a preview as Markdown for a pull request",
        epilog=f"Reads standard input: {_HOW}. With -s it runs the preview itself.",
    )
    parser.add_argument("-s", "--stack", default="", help="run the preview of this stack")
    parser.add_argument("--json", action="store_true", help="the facts as JSON instead of Markdown")
    parser.set_defaults(run=comment)


def comment(args: argparse.Namespace) -> int:
    """Print the Markdown. Returns 1 when the preview failed, with its errors as the comment."""
    text = _preview(args.stack) if args.stack else _piped()
    try:
        preview = _Preview.model_validate_json(text)
    except ValueError:
        raise OpsError(f"this is not what `pulumi preview --json` prints; {_HOW}") from None
    errors = [message.message.strip() for message in preview.diagnostics if message.severity == "error"]
    facts = report_in(preview.diagnostics)
    if args.json:
        print(json.dumps({"report": facts, "errors": errors, "changes": preview.changes}))
    elif facts and not errors:
        print(markdown(facts, preview.changes))
    elif errors:
        print(failure(errors))
    else:
        raise OpsError(f"the preview holds no report as data: run it with {REPORT}=json, as in {_HOW}")
    return 1 if errors else 0


def _piped() -> str:
    if sys.stdin.isatty():
        raise OpsError(f"nothing was piped in: {_HOW}, or -s STACK")
    return sys.stdin.read()


def _preview(stack: str) -> str:
    done = pulumi_command(["preview", "--json", "--stack", stack], {**os.environ, REPORT: "json"})
    if not done.stdout.lstrip().startswith("{"):
        raise OpsError(f"`pulumi preview -s {stack}` failed: {done.stderr.strip()}")
    return done.stdout


def report_in(messages: Sequence[Message]) -> dict[str, Any] | None:
    """The report among a preview's diagnostics, when it was printed as data."""
    for message in messages:
        if f"::{_DEPLOYMENT}::" in message.urn and message.message.startswith("{"):
            return json.loads(message.message)
    return None


def markdown(report: Mapping[str, Any], changes: Mapping[str, int]) -> str:
    """The report as a Markdown comment."""
    cost = report["cost"]
    monthly = Decimal(cost["monthly_usd"])
    lines = [
        f"### {report['provider']}: {dollars(monthly)} a month, {report['change']['text'].partition(':')[0]}",
        "",
        f"{_cell(report['model'])} on {_cell(report['hardware'])} ({_cell(report['offer'])}).",
        "",
        "| cost | quantity | unit price | a month | price of |",
        "|---|---:|---:|---:|---|",
        *(_row(line) for line in cost["lines"]),
        f"| **total** | | **${cost['hourly_usd']}/h** | **{dollars(monthly)}** | {_caveat(cost)} |",
        "",
    ]
    if cost["low"] != cost["high"]:
        lines.append(f"- Range: {dollars(Decimal(cost['low']))} to {dollars(Decimal(cost['high']))} a month")
    if cost["budget"]:
        left, limit = Decimal(cost["budget"]["left_usd"]), Decimal(cost["budget"]["limit_usd"])
        lines.append(f"- Budget: {dollars(left)} of {dollars(limit)} a month is left")
    if report["fit"]:
        lines.append(f"- Fit: {_cell(report['fit'])}")
    if report["place"]:
        lines.append(f"- Place: {_cell(report['place']['where'])}; {_cell(report['place']['evidence'])}")
    lines.append(f"- Resources: {_changes(changes)}")
    lines += [f"- {_cell(note)}" for note in report["notes"]]
    if cost["alternatives"]:
        lines += ["", "| elsewhere | GPU | a month | difference |", "|---|---|---:|---:|"]
        lines += [_alternative(other, monthly) for other in cost["alternatives"]]
    return "\n".join(lines)


def failure(errors: Sequence[str]) -> str:
    """A failed preview as a Markdown comment."""
    body = "\n\n".join(errors)
    fence = "`" * max(3, 1 + max((len(run) for run in body.split() if set(run) == {"`"}), default=0))
    return f"### The preview failed: nothing would be created\n\n{fence}\n{body}\n{fence}"


def _row(line: Mapping[str, Any]) -> str:
    unit, price, amount, cost = (line[k] for k in ("PricingUnit", "ListUnitPrice", "PricingQuantity", "ContractedCost"))
    unit = UNITS[unit]
    each = "not found" if price is None else f"{unit_dollars(Decimal(price))}/{unit}"
    quantity = "depends on usage" if amount is None else f"{shown_quantity(Decimal(amount))} {unit}"
    monthly = "" if cost is None else dollars(Decimal(cost))
    source, day, url = (line[k] for k in ("x_PriceSource", "x_PriceAsOf", "x_PriceUrl"))
    dated = f"{source} {day}" if day else source
    linked = f"[{dated}]({url})" if str(url).startswith("https://") else dated
    return f"| {_cell(line['ChargeDescription'])} | {quantity} | {each} | {monthly} | {linked} |"


def _alternative(other: Mapping[str, Any], than: Decimal) -> str:
    if other["monthly_usd"] is None:
        return f"| {other['provider']} | {other['gpu']} | not known | |"
    cost = Decimal(other["monthly_usd"])
    place = f" ({other['region']})" if other["region"] else ""
    return f"| {other['provider']}{place} | {other['gpu']} | {dollars(cost)} | {signed(cost - than)} |"


def _caveat(cost: Mapping[str, Any]) -> str:
    if cost["incomplete"]:
        return "incomplete: a price was not found"
    return "and what depends on usage" if cost["depends_on_usage"] else ""


def _changes(changes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} to {kind}" for kind, count in changes.items() if kind != "same" and count) or "no change"


def _cell(text: str) -> str:
    """Text that can't break out of a table's cell."""
    return " ".join(text.replace("|", "\\|").split())
