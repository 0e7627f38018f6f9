"""`vllm-anywhere watch`: look after stacks, one or all; with `--heal`, repair them within bounds."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live

from ops.arguments import positive
from ops.backend import backend_url, stack_names
from ops.stack import OpsError, Run, Stack, add_stacks
from ops.text import short_path
from ops.url import add_url_options, stack_of_url
from ops.watch_heal import Deed, heal, reporting_pulumi
from ops.watch_look import Ask, Known, Market, look, look_at, market_of, may_sleep, request
from ops.watch_memory import Folder
from ops.watch_view import Row, facts, lines, table
from serving.watching import Bounds, Limits, Seen, findings, repair_of

_AT_A_TIME = 4
"""Stacks that are looked at together: each look is some seconds of a CPU."""


def add_watch(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("watch", help="look after stacks: health, drift, prices, time to live; --heal repairs")
    add_stacks(parser, "all of the backend")
    add_url_options(parser)
    parser.add_argument("--model", default="", help="of --url: the model to ask (default: what it serves)")
    parser.add_argument("--once", action="store_true", help="one look; exits 1 unless all is well")
    parser.add_argument("--interval", type=positive, default=60.0, metavar="S", help="seconds between requests (60)")
    parser.add_argument(
        "--look-every", type=positive, default=600.0, metavar="S", help="seconds between looks at everything (600)"
    )
    parser.add_argument("--slow-ms", type=positive, metavar="MS", help="a later first token is a finding")
    parser.add_argument("--cheaper", type=_share, default=Decimal("0.20"), metavar="%", help="worth saying from (20)")
    parser.add_argument("--wake", action="store_true", help="ask sleeping workers too, which is billed")
    parser.add_argument("--heal", action="store_true", help="repair what may be, destroy what has outlived its time")
    parser.add_argument("--attempts", type=int, default=6, metavar="N", help="most changes of a stack a day (6)")
    parser.add_argument("--max-rise", type=_share, default=Decimal("0.10"), metavar="%", help="most extra cost (10)")
    parser.add_argument("--grace", type=_minutes, default=timedelta(hours=1), metavar="MIN", help="past its time (60)")
    parser.add_argument("--history", type=Path, metavar="FILE", help="where checks are kept (default: one a stack)")
    parser.add_argument("--json", action="store_true", help="a JSON object a line for each look")
    parser.set_defaults(run=watch)


@dataclass(frozen=True)
class Rim:
    """What a watch uses of the outside. `wait(seconds)` returns True once it has been told to end."""

    run: Run
    ask: Ask
    market: Market
    now: Callable[[], datetime]
    wait: Callable[[float], bool]


def watch(
    args: argparse.Namespace,
    *,
    run: Run = reporting_pulumi,
    ask: Ask = request,
    market: Market = market_of,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    wait: Callable[[float], bool] | None = None,
    out: TextIO | None = None,
) -> int:
    """Watch until told to end, or once. Returns 0; with `--once` 1 unless all is well.

    Raises:
        OpsError: the backend can't be asked for its stacks.
    """
    endpoint = _endpoint(args)
    folder = Folder(endpoint.endpoint if endpoint else backend_url(run))
    with _told_to_end() as ended:
        watching = Watch(args, Rim(run, ask, market, now, wait or ended.wait), folder, endpoint)
        with ThreadPoolExecutor(_AT_A_TIME) as pool, _view(args, folder, out or sys.stdout) as show:
            if args.once:
                rows = watching.round(pool, None)
                show(rows)
                return 0 if all(row.well for row in rows) else 1
            while True:
                show(watching.round(pool, args.interval))
                if watching.rim.wait(args.interval):
                    return 0


class Watch:
    """Stacks, each with what is known of it since its last whole look; or an `endpoint` that is nobody's stack."""

    def __init__(self, args: argparse.Namespace, rim: Rim, folder: Folder, endpoint: Stack | None = None) -> None:
        self.rim = rim
        self._endpoint = endpoint
        self._args = args
        self._folder = folder
        self._limits = Limits(args.slow_ms, cheaper=args.cheaper, grace=args.grace)
        self._bounds = Bounds(args.attempts, dearer=args.max_rise)
        self._names: list[str] = []
        self._known: dict[str, Known] = {}
        self._due: dict[str, datetime] = {}
        self._busy: dict[str, Future[Row | None]] = {}
        self._rows: dict[str, Row] = {}

    def round(self, pool: ThreadPoolExecutor, timeout_s: float | None) -> list[Row]:
        """See to every stack that isn't being seen to already; the rows as they are when all are done, or by then.

        Who is still busy then, with an `up` perhaps, keeps nobody else waiting.
        """
        for name in self._stacks():
            if name not in self._busy:
                self._busy[name] = pool.submit(self._check, name)
        wait_for(self._busy.values(), timeout_s)
        for name in [name for name, job in self._busy.items() if job.done()]:
            row = self._busy.pop(name).result()
            if row is None:
                self._rows.pop(name, None)
            else:
                self._rows[name] = row
        waited = {name: replace(self._rows.get(name) or Row(name, self.rim.now()), busy=True) for name in self._busy}
        return list((self._rows | waited).values())

    def _stacks(self) -> list[str]:
        if self._endpoint:
            return [self._endpoint.name]
        if self._args.stack:
            return list(dict.fromkeys(self._args.stack))
        try:
            self._names = stack_names(self.rim.run)
        except OpsError:
            # A backend that is away for a moment doesn't end a watch that has begun.
            if not self._names:
                raise
        return self._names

    def _check(self, name: str) -> Row | None:
        try:
            row = self._quick(name) or self._whole(name)
        except OpsError as error:
            row = Row(name, self.rim.now(), problem=str(error))
        if row and row.seen and row.seen.probe is not None:
            try:
                self._folder.note(name, facts(row), self._args.history)
            except OpsError as error:
                return replace(row, problem=str(error))
        return row

    def _quick(self, name: str) -> Row | None:
        """One request, as long as that is well, no whole look is due, and there is nothing new to act on."""
        known = self._known.get(name)
        if known is None or known.stack is None or self.rim.now() >= self._due[name]:
            return None
        if may_sleep(known.stack, known.spec) and not self._args.wake:
            probe = None
        elif not (probe := self.rim.ask(known.stack)).ok:
            return None
        row, before = self._row(known, replace(known.seen, at=self.rim.now(), probe=probe)), self._rows.get(name)
        if self._args.heal and (wanted := repair_of(row.findings))[0]:
            if before is None or repair_of(before.findings) != wanted:
                return None
            row = replace(row, deed=before.deed)
        return row

    def _whole(self, name: str) -> Row | None:
        if not self._args.heal:
            return self._look(name)
        # Who leads does so before it looks, so that nobody acts on what another has repaired meanwhile.
        with self._folder.leading(name) as leads:
            row = self._look(name)
            if row is None or row.seen is None or not repair_of(row.findings)[0]:
                return row
            if not leads:
                return replace(row, deed=Deed("following", "another watch on this machine acts on it"))
            deed = heal(name, row.findings, self._bounds, self._folder, self.rim.run, self.rim.now)
            if deed.result == "destroyed":
                self._known.pop(name, None)
            if deed.result != "repaired":
                return replace(row, deed=deed)
            return replace(self._look(name) or row, deed=deed)

    def _look(self, name: str) -> Row | None:
        rim = self.rim
        if self._endpoint:
            known = look_at(self._endpoint, rim.ask, rim.now)
        else:
            known = look(name, rim.run, rim.ask, rim.market, rim.now, wake=self._args.wake)
        self._due[name] = rim.now() + timedelta(seconds=self._args.look_every)
        if known is None:
            self._known.pop(name, None)
            return Row(name, rim.now(), problem="nothing is deployed in it") if self._args.stack else None
        memory = self._folder.memory(name)
        seen = known.seen
        well = bool(seen.probe and seen.probe.ok and seen.drift == ())
        if self._args.heal:
            kept = memory.seeing(known.stack.cost if known.stack else None, well=well)
            if kept != memory:
                self._folder.remember(name, kept)
            memory = kept
        known = replace(known, seen=replace(seen, unfinished=memory.unfinished))
        self._known[name] = known
        return self._row(known, known.seen)

    def _row(self, known: Known, seen: Seen) -> Row:
        found = findings(seen, self._limits)
        if self._endpoint:
            # The commands that come next are about stacks.
            found = tuple(replace(one, next="") for one in found)
        return Row(seen.stack, seen.at, seen, found)


def _endpoint(args: argparse.Namespace) -> Stack | None:
    """What `--url` names.

    Raises:
        OpsError: it doesn't go with what stacks have.
    """
    if not args.url:
        return None
    if args.stack or args.heal:
        raise OpsError("--url belongs to no stack, and nothing about it can be repaired: leave out -s and --heal")
    return stack_of_url(args, args.model)


@contextmanager
def _view(args: argparse.Namespace, folder: Folder, out: TextIO) -> Generator[Callable[[Sequence[Row]], None]]:
    """How each round is shown: JSON lines, a table that stays in place, or in a pipe the lines that are new."""
    if args.json:
        yield lambda rows: _print((json.dumps(facts(row)) for row in rows if not row.busy), out)
    elif out.isatty():
        kept = short_path((args.history or folder.path).absolute())
        about = f"history: {kept}{'' if args.heal else '; nothing is changed without --heal'}"
        console = Console(file=out, highlight=False, markup=False)
        with Live("looking at the stacks", console=console, auto_refresh=False) as live:
            yield lambda rows: live.update(table(rows, about), refresh=True)
    else:
        last: dict[str, list[str]] = {}

        def new(rows: Sequence[Row]) -> None:
            for row in rows:
                if not row.busy and lines(row) != last.get(row.stack):
                    last[row.stack] = lines(row)
                    _print((f"{row.at.isoformat(timespec='seconds')} {line}" for line in lines(row)), out)

        yield new


def _print(texts: Iterable[str], out: TextIO) -> None:
    for text in texts:
        print(text, file=out, flush=True)


@contextmanager
def _told_to_end() -> Generator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set; the second Ctrl-C breaks off.

    The default would kill the `pulumi` that is at work, and what it was about to create would be nobody's.
    """
    ended = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield ended
        return

    def end(number: int, frame: FrameType | None) -> None:
        if ended.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _share(text: str) -> Decimal:
    """Per cent as a share of 1."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of per cent")
    return Decimal(text) / 100


def _minutes(text: str) -> timedelta:
    return timedelta(minutes=0 if text == "0" else positive(text))
