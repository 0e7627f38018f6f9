"""`vllm-anywhere orphans`: what carries our label and bills, but is owned by no stack's state.

A platform that doesn't answer is never counted as one without orphans, and nothing is destroyed as long as a state
can't be read. In the wrong backend everything looks like nobody's; so `--yes` alone, which nobody reads a warning with,
destroys only what is of a stack that this backend has.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from itertools import groupby
from typing import Any

from rich import box
from rich.table import Table

from ops.arguments import positive
from ops.backend import Backend, projects, read_backend, stack_names
from ops.parallel import ask_all
from ops.stack import OpsError, Run
from ops.text import show, show_json
from providers.account import Account, Holding, load_account
from providers.base import PlatformError, platform_names
from providers.native import Context
from serving.spec import HOURS_PER_MONTH

TIMEOUT_S = 60.0
_AT_A_TIME = 8
_CENTS = Decimal("0.0001")


@dataclass(frozen=True)
class Orphan:
    """A thing of ours that no state has.

    `stack` is the one that has begun to make or change it and isn't recorded as done, "" when there is none.
    """

    platform: str
    holding: Holding
    stack: str = ""


@dataclass(frozen=True)
class Findings:
    """What was found, by backend; `unanswered` has the reason of each platform that could not be asked."""

    backend: Backend
    asked: tuple[str, ...]
    orphans: tuple[Orphan, ...]
    unfinished: tuple[Orphan, ...]
    unanswered: Mapping[str, str]

    @property
    def foreign(self) -> tuple[Orphan, ...]:
        """Those of stacks that this backend doesn't have: they were removed, or are another backend's."""
        known = tuple(f"{project}/" for project in projects(stack.name for stack in self.backend.stacks))
        return tuple(one for one in self.orphans if not one.holding.label.startswith(known))


def add_orphans(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("orphans", help="what carries our label and bills, but belongs to no stack")
    parser.add_argument("platforms", nargs="*", metavar="PLATFORM", help="only these (default: all)")
    parser.add_argument("--label", default="", metavar="PREFIX", help="only labels that begin so: project/stack/")
    parser.add_argument("--destroy", action="store_true", help="destroy them, after one question")
    parser.add_argument("--yes", action="store_true", help="don't ask; what is of no stack here then needs --label")
    parser.add_argument("--timeout", type=positive, default=TIMEOUT_S, metavar="S", help="seconds for all the lists")
    parser.add_argument("--json", action="store_true", help="one JSON document, for programs")
    parser.set_defaults(run=orphans)


def orphans(
    args: argparse.Namespace,
    *,
    run: Run | None = None,
    ask: Callable[[str], str] = input,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """List, and destroy if asked to. Returns 0 when every platform has answered and no orphan is left, else 1.

    Raises:
        OpsError: a state can't be read, or nobody can be asked whether to destroy.
    """
    platforms = chosen_platforms(args.platforms)
    found = find(platforms, args.label, args.timeout, run)
    destroyed: dict[Orphan, str] = {}
    if not args.json:
        show([*_view(found, asks=args.destroy)])
    if args.destroy and found.orphans:
        chosen = agreed(found, args, ask)
        # A state may have come to own one of them while the question stood.
        owned = read_backend(run)
        wanted = [one for one in chosen if not _owner(owned, one)]
        destroyed = destroy(wanted, args.timeout, pause, quiet=args.json)
        if len(wanted) < len(chosen):
            print(f"{len(chosen) - len(wanted)} belong to a stack by now and are kept", file=sys.stderr)
    if args.json:
        show_json(_facts(found, destroyed))
    elif destroyed:
        print(_told(destroyed))
    left = [one for one in (*found.orphans, *found.unfinished) if destroyed.get(one, "left")]
    return 1 if left or found.unanswered else 0


def chosen_platforms(named: Sequence[str]) -> list[str]:
    """The named platforms, or all.

    Raises:
        OpsError: a name that is no platform's.
    """
    if wrong := [name for name in named if name not in platform_names()]:
        raise OpsError(f"{wrong[0]} is no platform; there are {', '.join(platform_names())}")
    return list(dict.fromkeys(named)) or platform_names()


def find(platforms: Sequence[str], prefix: str, timeout_s: float, run: Run | None = None) -> Findings:
    """Ask every platform at once, and take away what a state owns.

    States are read after the lists: what a running `up` makes in between is in a state by then, or claimed by one.

    Raises:
        OpsError: a state can't be read.
    """
    stacks = projects(stack_names(run))
    answers = ask_all({platform: partial(_holdings, platform, stacks, timeout_s) for platform in platforms}, timeout_s)
    backend = read_backend(run)
    ours = [
        Orphan(platform, holding, backend.claimant(holding.label))
        for platform, holdings in answers.items()
        if not isinstance(holdings, PlatformError)
        for holding in holdings
        if holding.label.startswith(prefix) and not backend.owner(platform, holding.id)
    ]
    return Findings(
        backend=backend,
        asked=tuple(platforms),
        orphans=tuple(one for one in ours if not one.stack),
        unfinished=tuple(one for one in ours if one.stack),
        unanswered={platform: str(why) for platform, why in answers.items() if isinstance(why, PlatformError)},
    )


def destroy(
    orphans: Iterable[Orphan], timeout_s: float, pause: Callable[[float], None], *, quiet: bool
) -> dict[Orphan, str]:
    """Destroy each, platforms at the same time, and return once each is gone or has failed: "" or why."""
    platforms = [list(some) for _, some in groupby(orphans, key=_platform)]
    with ThreadPoolExecutor(max(1, len(platforms))) as pool:
        done = pool.map(partial(_destroy_on, timeout_s=timeout_s, pause=pause, quiet=quiet), platforms)
        return {one: why for results in done for one, why in results.items()}


def total(orphans: Iterable[Orphan]) -> Decimal:
    """US dollars an hour of all whose price is known."""
    return sum((one.holding.hourly_usd or Decimal(0) for one in orphans), Decimal(0))


def _holdings(platform: str, stacks: frozenset[str], timeout_s: float) -> list[Holding]:
    return load_account(platform)(timeout_s).holdings(stacks)


def _owner(backend: Backend, one: Orphan) -> str:
    return backend.owner(one.platform, one.holding.id) or backend.claimant(one.holding.label)


def _destroy_on(
    orphans: Sequence[Orphan], timeout_s: float, pause: Callable[[float], None], *, quiet: bool
) -> dict[Orphan, str]:
    """Those of one platform."""
    account = load_account(orphans[0].platform)(timeout_s)
    release = partial(_release, account, pause=pause, quiet=quiet)
    results: dict[Orphan, str] = {}
    # A volume can only go after what it is mounted in, so that the kinds go one after the other.
    for _, some in groupby(orphans, key=_kind):
        group = list(some)
        with ThreadPoolExecutor(min(_AT_A_TIME, len(group))) as pool:
            results.update(zip(group, pool.map(release, group), strict=True))
    return results


def _platform(one: Orphan) -> str:
    return one.platform


def _kind(one: Orphan) -> str:
    return one.holding.kind


def _release(account: Account, one: Orphan, pause: Callable[[float], None], *, quiet: bool) -> str:
    def say(text: str) -> None:
        if not quiet:
            print(f"  {one.platform}: {text}", file=sys.stderr)

    def wait(seconds: float) -> bool:
        pause(seconds)
        return False

    context = Context(urn="", progress=say, pause=wait, clock=time.monotonic, now=lambda: datetime.now(UTC))
    try:
        account.release(context, one.holding)
    except PlatformError as error:
        return str(error)
    return ""


def agreed(found: Findings, args: argparse.Namespace, ask: Callable[[str], str]) -> list[Orphan]:
    """What may be destroyed: all of it once somebody has said yes to it.

    Raises:
        OpsError: nobody is there to be asked, or the answer was no.
    """
    count = len(found.orphans)
    if args.yes:
        left = () if args.label else found.foreign
        if left:
            print(_foreign(left, "so --yes leaves them"), file=sys.stderr)
        return [one for one in found.orphans if one not in left]
    if args.json or not sys.stdin.isatty():
        raise OpsError("nobody is there to be asked, so nothing was destroyed; `--destroy --yes` doesn't ask")
    question = f"Destroy {'it' if count == 1 else f'all {count}'}, with what is on them? Type yes: "
    if ask(question).strip().lower() != "yes":
        raise OpsError(f"nothing was destroyed; they go on costing {_an_hour(found.orphans)}")
    return list(found.orphans)


def _foreign(orphans: Sequence[Orphan], so: str) -> str:
    """What is not of a stack in this backend, by stack, and how it is destroyed all the same."""
    stacks = sorted({"/".join(one.holding.label.split("/")[:2]) for one in orphans})
    prefix = f"{stacks[0]}/" if "/" in stacks[0] else stacks[0]
    count = f"{len(orphans)} of them {'is' if len(orphans) == 1 else 'are'}"
    return (
        f"{count} of no stack in this backend, {so}: {', '.join(stacks)}. If nobody else has it: "
        f"`vllm-anywhere orphans --label {prefix} --destroy`"
    )


def _view(found: Findings, *, asks: bool) -> Iterable[Table | str]:
    if found.orphans:
        yield _table(found.orphans)
        where = f"{found.backend.url or 'this backend'} (stacks: {len(found.backend.stacks)})"
        yield (
            f"No state in {where} owns them. A stack in another backend, or on somebody else's machine, may: then "
            "destroying them takes its server away."
        )
        if found.foreign:
            yield _foreign(found.foreign, "which may mean that it is the wrong one")
    for one in found.unfinished:
        held, stack = one.holding, one.stack
        yield (
            f"{one.platform} {held.kind} {held.id} (${_price(held.hourly_usd)} an hour) is left alone: an `up` of "
            f"stack {stack} makes it now, or was cut short. `pulumi up -s {stack}` adopts it, "
            f"`pulumi refresh --clear-pending-creates -s {stack}` lets go of it."
        )
    answered = [platform for platform in found.asked if platform not in found.unanswered]
    clean = [name for name in answered if all(one.platform != name for one in (*found.orphans, *found.unfinished))]
    if clean:
        yield f"No orphans on {', '.join(clean)}."
    for platform, why in found.unanswered.items():
        yield f"Not known for {platform}: {why}"
    if found.unanswered and answered:
        yield f"`vllm-anywhere orphans {' '.join(answered)}` leaves them out."
    if found.orphans and not asks:
        yield "`vllm-anywhere orphans --destroy` destroys what is listed; `--label project/stack/` narrows it."


def _table(orphans: Sequence[Orphan]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_footer=True)
    table.add_column("platform", no_wrap=True, footer="total")
    table.add_column("what", overflow="fold")
    table.add_column("id", overflow="fold", min_width=8)
    table.add_column("label", overflow="fold", min_width=12)
    table.add_column("state", overflow="fold")
    table.add_column("$/hour", justify="right", no_wrap=True, footer=_sum(orphans))
    for one in orphans:
        held = one.holding
        table.add_row(
            one.platform,
            held.kind,
            "" if held.id == held.label else held.id,
            held.label,
            held.status,
            _price(held.hourly_usd),
        )
    return table


def _told(destroyed: Mapping[Orphan, str]) -> str:
    gone = [one for one, why in destroyed.items() if not why]
    lines: list[str] = []
    if gone:
        month = total(gone) * HOURS_PER_MONTH
        lines.append(
            f"Destroyed {len(gone)}, each seen to be gone. That saves {_an_hour(gone)}, ${month:,.2f} in a month."
        )
    for one, why in destroyed.items():
        if why:
            lines.append(f"Not certain to be gone: {one.platform} {one.holding.kind} {one.holding.id}: {why}")
    return "\n".join(lines)


def _sum(orphans: Sequence[Orphan]) -> str:
    more = "+" if any(one.holding.hourly_usd is None for one in orphans) else ""
    return f"{total(orphans).quantize(_CENTS):f}{more}"


def _an_hour(orphans: Sequence[Orphan]) -> str:
    unknown = sum(one.holding.hourly_usd is None for one in orphans)
    more = f" and what {unknown} of unknown price cost" if unknown else ""
    return f"${total(orphans).quantize(_CENTS):f} an hour{more}"


def _price(hourly: Decimal | None) -> str:
    return "unknown" if hourly is None else f"{hourly.quantize(_CENTS):f}"


def _facts(found: Findings, destroyed: Mapping[Orphan, str]) -> dict[str, Any]:
    return {
        "backend": found.backend.url,
        "stacks": [stack.name for stack in found.backend.stacks],
        "asked": list(found.asked),
        "unanswered": dict(found.unanswered),
        "orphans": [_fact(one, destroyed) for one in found.orphans],
        "of_no_stack_here": [one.holding.id for one in found.foreign],
        "unfinished": [{**_fact(one, {}), "stack": one.stack} for one in found.unfinished],
        "hourly_usd": str(total(found.orphans)),
        "prices_complete": all(one.holding.hourly_usd is not None for one in found.orphans),
        "saved_hourly_usd": str(total(one for one, why in destroyed.items() if not why)),
    }


def _fact(one: Orphan, destroyed: Mapping[Orphan, str]) -> dict[str, Any]:
    held = one.holding
    return {
        "platform": one.platform,
        "kind": held.kind,
        "id": held.id,
        "label": held.label,
        "status": held.status,
        "since": held.since or None,
        "hourly_usd": None if held.hourly_usd is None else str(held.hourly_usd),
        "destroyed": (not destroyed[one]) if one in destroyed else None,
        "problem": destroyed.get(one) or None,
    }
