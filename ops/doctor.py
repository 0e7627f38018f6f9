"""`vllm-anywhere doctor`: does the key work, is there money, is there stock, and is this machine set up."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any

from rich.table import Table
from rich.text import Text

from ops.arguments import positive
from ops.backend import projects, stack_names
from ops.parallel import ask_all
from ops.spec import add_spec_options, asked_spec
from ops.stack import OpsError, Run, pulumi_command
from ops.text import show, show_json
from providers.account import Account, Balance, Check, Holding, Verdict, load_account
from providers.base import FOR_TESTS, AuthError, PlatformError, live_prices, platform_names
from providers.model_shape import model_shape
from serving.models import Model
from serving.offers import Offer
from serving.places import all_places, regions_on
from serving.rank import Candidate, Judge, chosen_order, wanted_gpus
from serving.spec import DeploymentSpec

TIMEOUT_S = 15.0

_HOURS_TO_WARN = 24
_LEVELS = ("high", "medium", "low", "", "none")
_MOST_GPUS = 4
_STYLES: Mapping[Verdict, str] = {"ok": "green", "warning": "yellow", "failed": "bold red"}

Question = Callable[[], Sequence[Check]]


@dataclass(frozen=True)
class Finding:
    """One check of one platform."""

    platform: str
    check: Check


def add_doctor(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("doctor", help="is everything there that `up` needs: keys, money, stock, this machine")
    parser.add_argument("platforms", nargs="*", metavar="PLATFORM", help="only these (default: all that have a key)")
    add_spec_options(parser)
    parser.add_argument("--timeout", type=positive, default=TIMEOUT_S, metavar="S", help="seconds for all of it")
    parser.add_argument("--json", action="store_true", help="one JSON document, for programs")
    parser.set_defaults(run=doctor)


def doctor(args: argparse.Namespace, *, run: Run | None = None) -> int:
    """Print every check. Returns 1 when one has failed, else 0.

    Raises:
        OpsError: no such platform, or a spec that is wrong.
    """
    spec = asked_spec(args)
    if wrong := [name for name in args.platforms if name not in platform_names()]:
        raise OpsError(f"{wrong[0]} is no platform; there are {', '.join(platform_names())}")
    platforms, left_out = _chosen(args.platforms, args.timeout)
    findings = list(examine(platforms, spec, args.timeout, run or pulumi_command))
    failed = [one for one in findings if one.check.verdict == "failed"]
    if args.json:
        checks = [{"platform": one.platform, **asdict(one.check)} for one in findings]
        show_json({"ok": not failed, "checks": checks, "not_checked": left_out})
    else:
        show([_table(findings), *([_left_out(left_out)] if left_out else [])])
    return 1 if failed else 0


def examine(platforms: Sequence[str], spec: DeploymentSpec, timeout_s: float, run: Run) -> Iterator[Finding]:
    """Every check of every platform, asked at the same time; what doesn't answer has failed."""
    questions: dict[tuple[str, str], Question] = {}
    for platform in platforms:
        try:
            account = load_account(platform)(timeout_s)
        except PlatformError as error:
            yield Finding(platform, Check("key", "failed", str(error)))
            continue
        for name, question in _questions(platform, account, spec, timeout_s, run):
            questions[platform, name] = question
    answers = ask_all(questions, timeout_s)
    refused = {platform for (platform, name), said in answers.items() if name == "key" and isinstance(said, AuthError)}
    for (platform, name), answer in answers.items():
        if not isinstance(answer, PlatformError):
            yield from (Finding(platform, check) for check in answer)
        elif name == "key" or not (platform in refused and isinstance(answer, AuthError)):
            # What a refused key can't see is said once. Google's prices take a key of their own, and `up` does without.
            optional = name == "stock" and isinstance(answer, AuthError)
            yield Finding(platform, Check(name, "warning" if optional else "failed", str(answer)))


def check_balance(found: Balance) -> Check:
    """Whether what is left lasts another day of what runs now."""
    spent = f"${found.hourly_usd:.4f} an hour is spent now"
    if found.usd is None:
        return Check("balance", "warning", f"the API doesn't show it; {spent}", f"look at {found.page}")
    left = f"${found.usd:.2f} left"
    if found.usd <= 0:
        return Check("balance", "failed", f"{left}: nothing can be rented, and what runs is stopped", _add(found))
    if not found.hourly_usd:
        return Check("balance", "ok", f"{left}, nothing is spent now")
    hours = found.usd / found.hourly_usd
    if hours < _HOURS_TO_WARN:
        return Check("balance", "warning", f"{left}, and {spent}: it lasts {hours:.1f} hours", _add(found))
    return Check("balance", "ok", f"{left}, and {spent}: it lasts {hours / 24:,.0f} days")


def check_running(holdings: Sequence[Holding]) -> Check:
    """What of ours is there, and costs."""
    if not holdings:
        return Check("running", "ok", "nothing with our label is there")
    known = sum((one.hourly_usd or Decimal(0) for one in holdings), Decimal(0))
    more = "+" if any(one.hourly_usd is None for one in holdings) else ""
    text = f"{len(holdings)} with our label, ${known:.4f}{more} an hour"
    if known or more:
        text += "; `vllm-anywhere orphans` says what of it belongs to no stack"
    return Check("running", "ok", text)


def check_regions(platform: str, spec: DeploymentSpec, there: frozenset[str]) -> Check:
    """Whether the places that the spec may use are still called so by the platform."""
    wanted = regions_on(platform, spec.placement.regions) or tuple(one.region for one in all_places(platform))
    gone = sorted(set(wanted) - there)
    unknown = sorted(there - {one.region for one in all_places(platform)})
    if gone and not set(wanted) & there:
        text = f"none of {', '.join(gone)} is in {platform}'s catalogue"
        return Check("regions", "failed", text, "pulumi config set --path vllm-anywhere:placement.regions '[]'")
    if gone:
        return Check("regions", "warning", f"no longer in {platform}'s catalogue, and not used: {', '.join(gone)}")
    if unknown:
        text = f"new in {platform}'s catalogue, and of unknown country, so that no region leads there"
        return Check("regions", "warning", f"{text}: {', '.join(unknown)}")
    return Check("regions", "ok", f"{len(wanted)} places by names that {platform} knows")


def check_stock(platform: str, spec: DeploymentSpec, model: Model, offers: Iterable[Offer]) -> Check:
    """Whether what the spec asks for can be had now."""
    compare = "vllm-anywhere compare --platform " + platform
    offered = list(offers)
    # Judged as if there were stock, so that what is sold out shows as that.
    judge = Judge(spec, model)
    judged = [judge(replace(one, availability="")) for one in offered]
    levels = {id(one.offer): had.availability for one, had in zip(judged, offered, strict=True)}
    fitting = chosen_order(spec, judged)
    if not fitting:
        return Check("stock", "failed", f"nothing on offer will do: {_why_none(spec, judged)}", compare)
    best: dict[str, dict[str, list[str]]] = {}
    for one in fitting:
        best.setdefault(one.offer.gpu, {}).setdefault(one.offer.kind, []).append(levels[id(one.offer)])
    told = [
        f"{gpu}: {', '.join(f'{kind} {_level(found)}' for kind, found in kinds.items())}" for gpu, kinds in best.items()
    ]
    text = "; ".join(told[:_MOST_GPUS]) + (f"; and {len(told) - _MOST_GPUS} more" if len(told) > _MOST_GPUS else "")
    empty = [all(level == "none" for found in kinds.values() for level in found) for kinds in best.values()]
    if all(empty):
        return Check("stock", "failed", f"sold out: {text}", compare)
    if any(empty) and spec.hardware.gpus:
        return Check("stock", "warning", f"some are sold out: {text}", compare)
    return Check("stock", "ok", text)


def _why_none(spec: DeploymentSpec, judged: Sequence[Candidate]) -> str:
    wanted = wanted_gpus(spec)
    if wanted and not any(one.offer.gpu in wanted for one in judged):
        return f"{' or '.join(wanted)} is not on offer there"
    if not judged:
        return "there are no offers for it"
    # What comes nearest is refused for the fewest reasons.
    return min(
        (one for one in judged if not wanted or one.offer.gpu in wanted), key=lambda one: len(one.reasons)
    ).reasons[0]


def _questions(
    platform: str, account: Account, spec: DeploymentSpec, timeout_s: float, run: Run
) -> Iterator[tuple[str, Question]]:
    yield "key", lambda: [Check("key", "ok", account.identify())]
    yield "balance", partial(_balance, account)
    yield "running", partial(_running, account, run)
    yield "regions", partial(_regions, platform, account, spec)
    if platform in live_prices():
        yield "stock", partial(_stock, platform, spec, timeout_s)
    yield "platform", account.checks
    if platform == "local":
        yield "pulumi", partial(_pulumi, run)


def _balance(account: Account) -> list[Check]:
    found = account.balance()
    return [] if found is None else [check_balance(found)]


def _running(account: Account, run: Run) -> list[Check]:
    try:
        stacks = projects(stack_names(run))
    except OpsError:
        # Without Pulumi, only what has the whole label is known to be ours.
        stacks = frozenset[str]()
    return [check_running(account.holdings(stacks))]


def _regions(platform: str, account: Account, spec: DeploymentSpec) -> list[Check]:
    there = account.regions()
    return [] if there is None else [check_regions(platform, spec, there)]


def _stock(platform: str, spec: DeploymentSpec, timeout_s: float) -> list[Check]:
    return [check_stock(platform, spec, model_shape(spec.model), live_prices()[platform](spec, timeout_s))]


def _pulumi(run: Run) -> list[Check]:
    try:
        version = run(["version"]).stdout.strip()
        stacks = stack_names(run)
    except OpsError as error:
        return [Check("Pulumi", "failed", str(error), "source tools/env.sh")]
    return [Check("Pulumi", "ok", f"{version}, stacks: {len(stacks)}")]


def _chosen(named: Sequence[str], timeout_s: float) -> tuple[list[str], dict[str, str]]:
    """The platforms to look at; and those without a key that nobody named, each with why."""
    if named:
        return list(dict.fromkeys(named)), {}
    left_out: dict[str, str] = {}
    for platform in platform_names():
        try:
            load_account(platform)(timeout_s)
        except PlatformError as error:
            left_out[platform] = str(error)
    return [name for name in platform_names() if name not in left_out and name != FOR_TESTS], left_out


def _level(levels: Sequence[str]) -> str:
    best = min(levels, key=_LEVELS.index)
    if best:
        return best
    return f"{len(levels)} offers" if len(levels) > 1 else "1 offer"


def _add(found: Balance) -> str:
    return f"add credit at {found.page}"


def _table(findings: Sequence[Finding]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in findings:
        check = one.check
        text = Text(check.text)
        if check.next:
            text.append(f"\n{check.next}", style="bold")
        table.add_row(Text(check.verdict, style=_STYLES[check.verdict]), one.platform, check.name, text)
    return table


def _left_out(reasons: Mapping[str, str]) -> str:
    names = ", ".join(reasons)
    return f"\nNot looked at: {names}. `vllm-anywhere doctor {' '.join(reasons)}` says what is missing."
