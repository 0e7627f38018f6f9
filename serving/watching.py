"""What a watch makes of what it saw of a stack: findings, and what may be done about them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from serving.money import Money
from serving.tls import expiring

Severity = Literal["critical", "warning", "info"]
Repair = Literal["", "up", "destroy"]

_SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")
TELLING = frozenset({"status", "lost"})
"""Inputs by which a resource of ours says that it doesn't run (`up` starts it), or is lost (`up` makes another)."""
_STATUS = TELLING | {"currentStatus", "desiredStatus"}
"""With those of Google's package."""
_CERTIFICATE = "vllm-anywhere:index:Certificate"
EVERY_SERVER = "every server"
"""Among broken resources: each server of the stack."""
_HARMLESS = frozenset({"same", "read", "refresh", "update"})


@dataclass(frozen=True, slots=True)
class Drift:
    """A resource that isn't as state has it. `changes` are property -> (was, is); none when it is gone."""

    resource: str
    kind: str
    gone: bool = False
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict[str, tuple[Any, Any]])

    @property
    def serves(self) -> bool:
        return serves(self.resource)


@dataclass(frozen=True, slots=True)
class Probe:
    """One request with the key. `latency_ms` is until the first token."""

    ok: bool
    latency_ms: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Cheapest:
    """The cheapest offer for the same spec, US dollars a month."""

    name: str
    monthly: Decimal


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a stack.

    Attributes:
        probe: None when it wasn't asked, because a request would wake its workers.
        drift: None when the platform couldn't be asked.
        billed: US dollars an hour that the platform says it bills for the servers; None where it doesn't say.
        certificates: when each ends.
        unfinished: resources of a repair that was begun and never went through.
        unknown: what couldn't be looked at, and why.
    """

    stack: str
    at: datetime
    probe: Probe | None
    drift: tuple[Drift, ...] | None = ()
    spot: bool = False
    created_at: datetime | None = None
    ttl_hours: float | None = None
    shown: Money = field(default_factory=Money)
    billed: Decimal | None = None
    cheapest: Cheapest | None = None
    certificates: Mapping[str, datetime] = field(default_factory=dict[str, datetime])
    unfinished: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def ends_at(self) -> datetime | None:
        return ends_at(self.created_at, self.ttl_hours)


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on something is a finding. Shares are of 1."""

    slow_ms: float | None = None
    dearer: Decimal = Decimal("0.05")
    cheaper: Decimal = Decimal("0.20")
    grace: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that isn't as it should be: a sentence, the next command, and what `--heal` does about it."""

    kind: str
    severity: Severity
    text: str
    next: str = ""
    repair: Repair = ""
    resources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One time that a watch changed a stack, or tried to."""

    at: datetime
    ok: bool


@dataclass(frozen=True, slots=True)
class Bounds:
    """How often a stack may be changed, and for how much more than what it cost. `dearer` is a share of 1."""

    attempts_a_day: int = 6
    first_wait: timedelta = timedelta(minutes=5)
    longest_wait: timedelta = timedelta(hours=6)
    dearer: Decimal = Decimal("0.10")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan, as the engine names it: `create`, `update`, `replace`, `delete`, ..."""

    op: str
    resource: str


@dataclass(frozen=True, slots=True)
class Repairing:
    """What an `up` would do now, and cost."""

    steps: tuple[Step, ...]
    quoted: Money | None


def serves(name: str) -> bool:
    """Whether a resource of that name is what adapters declare as a server."""
    return name == "server" or name.startswith("server-")


def ends_at(created_at: datetime | None, ttl_hours: float | None) -> datetime | None:
    """When a stack's time is over; None when it has no end, or it isn't known when it began."""
    return None if created_at is None or ttl_hours is None else created_at + timedelta(hours=ttl_hours)


def findings(seen: Seen, limits: Limits) -> tuple[Finding, ...]:
    """Everything that isn't as it should be, the worst first."""
    life = [*_life(seen, limits)]
    found = [*_health(seen, limits), *_drifts(seen), *_ends(seen), *_prices(seen, limits)]
    if life:
        # What is about to be destroyed isn't rented anew; Google takes a VM away itself when its time is over.
        found = [replace(one, repair="") for one in found]
    unknown = [Finding("unknown", "warning", text) for text in seen.unknown]
    return tuple(sorted([*life, *found, *unknown], key=lambda one: _SEVERITIES.index(one.severity)))


def repair_of(found: Iterable[Finding]) -> tuple[Repair, tuple[str, ...]]:
    """What is to be done, and for which resources. A stack that is to be destroyed isn't repaired first."""
    wanted = [one for one in found if one.repair]
    if any(one.repair == "destroy" for one in wanted):
        return "destroy", ()
    names = dict.fromkeys(name for one in wanted for name in one.resources)
    return ("up" if wanted else ""), tuple(names)


def too_soon(attempts: Sequence[Attempt], bounds: Bounds, now: datetime) -> str:
    """Why nothing may be tried now; "" when it may.

    Each failure in a row doubles the wait. Repairs that went through count against the day as well: a server that is
    taken away all day long is paid for from its start each time.
    """
    today = [one for one in attempts if one.at > now - timedelta(days=1)]
    if len(today) >= bounds.attempts_a_day:
        until = today[-bounds.attempts_a_day].at + timedelta(days=1)
        return f"{len(today)} attempts in 24 hours are the most; the next may be at {_when(until)}"
    failures = 0
    for one in reversed(attempts):
        if one.ok:
            break
        failures += 1
    if failures:
        wait = min(bounds.longest_wait, bounds.first_wait * 2 ** min(failures - 1, 16))
        if (until := attempts[-1].at + wait) > now:
            return f"{failures} failed in a row; the next may be at {_when(until)}"
    return ""


def objections(plan: Repairing, broken: Sequence[str], shown: Money, bounds: Bounds) -> tuple[str, ...]:
    """Why an `up` would be more than a repair of what is broken, or cost too much; none when it may be done."""
    return (*_beyond(plan, broken), *_too_dear(plan.quoted, shown, bounds.dearer))


def _beyond(plan: Repairing, broken: Sequence[str]) -> Iterator[str]:
    """Only what is broken may be made, replaced or deleted."""
    for step in plan.steps:
        meant = step.resource in broken or (EVERY_SERVER in broken and serves(step.resource))
        if step.op not in _HARMLESS and not meant:
            yield (
                f"it would {step.op.replace('-', ' ')} {step.resource}, which isn't broken: the stack's config or the "
                "program is not what was deployed"
            )


def _too_dear(quoted: Money | None, shown: Money, dearer: Decimal) -> Iterator[str]:
    if quoted is None or quoted.compared is None:
        yield "what it would cost isn't known"
        return
    if shown.compared is None:
        yield "what the stack cost before isn't known"
        return
    for was, now, per in ((shown.compared, quoted.compared, "a month"), (shown.hourly, quoted.hourly, "an hour")):
        if was is not None and now is not None and now > was * (1 + dearer):
            yield f"it would cost ${now} {per}, more than {dearer:.0%} above the ${was} of before"


def _life(seen: Seen, limits: Limits) -> Iterator[Finding]:
    end = seen.ends_at
    if end is None or seen.at < end:
        return
    costs = "" if seen.shown.hourly is None else f" It costs ${seen.shown.hourly} an hour."
    text = f"its {seen.ttl_hours:g} hours (`budget.ttl_hours`) were over at {_when(end)}.{costs}"
    command = f"pulumi destroy -s {seen.stack}"
    if seen.at >= end + limits.grace:
        yield Finding("ttl", "critical", text, command, "destroy")
    else:
        text += f" With --heal it is destroyed at {_when(end + limits.grace)}"
        yield Finding("ttl", "warning", text, command)


def _health(seen: Seen, limits: Limits) -> Iterator[Finding]:
    if seen.probe is None:
        return
    if not seen.probe.ok:
        why = f"vllm-anywhere logs --why -s {seen.stack}"
        yield Finding("down", "critical", f"does not answer: {seen.probe.problem}", why)
    elif limits.slow_ms is not None and seen.probe.latency_ms > limits.slow_ms:
        text = f"the first token took {seen.probe.latency_ms:.0f} ms, over {limits.slow_ms:g}"
        yield Finding("slow", "warning", text, f"vllm-anywhere bench -s {seen.stack}")


def _drifts(seen: Seen) -> Iterator[Finding]:
    up = f"pulumi up --refresh -s {seen.stack}"
    drift = seen.drift or ()
    names = {one.resource for one in drift}
    for one in drift:
        name = one.resource
        stopped = {key: pair for key, pair in one.changes.items() if key in _STATUS}
        if one.gone and one.serves:
            kind, text = ("interrupted", "was taken back: spot") if seen.spot else ("gone", "is gone from the platform")
            yield Finding(kind, "critical", f"{name} {text}", up, "up", (name,))
        elif one.gone:
            yield Finding("gone", "warning", f"{name} is gone from the platform", up, "up", (name,))
        elif one.kind == _CERTIFICATE:
            # A server that is given its certificate when it starts is replaced for a new one.
            yield Finding("certificate", "warning", f"{name} is about to expire", up, "up", (name, EVERY_SERVER))
        elif stopped:
            kind, now = "interrupted" if seen.spot else "stopped", " and ".join(str(is_) for _, is_ in stopped.values())
            yield Finding(kind, "critical", f"{name} is {now}", up, "up", (name,))
        elif (cut := one.changes.get("maxWorkers")) and _less(cut):
            text = f"{name} may have {cut[1]} workers at most, and had {cut[0]}"
            yield Finding("workers", "warning", text, up, "up", (name,))
        else:
            what = "; ".join(f"{key} is {_short(now)}, was {_short(was)}" for key, (was, now) in one.changes.items())
            yield Finding("drift", "warning", f"{name} was changed outside of Pulumi: {what}", up)
    if left := tuple(name for name in seen.unfinished if name not in names):
        text = f"a repair of {', '.join(left)} was begun and has not gone through"
        yield Finding("unfinished", "critical", text, up, "up", left)


def _ends(seen: Seen) -> Iterator[Finding]:
    drifted = {one.resource for one in seen.drift or () if one.kind == _CERTIFICATE}
    for name, end in seen.certificates.items():
        if name not in drifted and expiring(end, now=seen.at):
            text = f"{name} ends at {_when(end)}"
            yield Finding("certificate", "warning", text, f"pulumi up --refresh -s {seen.stack}")


def _prices(seen: Seen, limits: Limits) -> Iterator[Finding]:
    shown = seen.shown
    if seen.billed is not None and shown.hourly is not None and seen.billed > shown.hourly * (1 + limits.dearer):
        text = f"${seen.billed} an hour is billed, and ${shown.hourly} was shown"
        yield Finding("price", "warning", text, f"pulumi preview -s {seen.stack}")
    if seen.cheapest is not None and shown.compared is not None:
        offer, saved = seen.cheapest, shown.compared - seen.cheapest.monthly
        if saved > 0 and saved >= shown.compared * limits.cheaper:
            share = f"{saved / shown.compared:.0%}"
            text = f"{offer.name} costs ${offer.monthly:.2f} a month, ${saved:.2f} ({share}) less"
            yield Finding("cheaper", "info", text, f"vllm-anywhere compare --fits -s {seen.stack}")


def _less(pair: tuple[Any, Any]) -> bool:
    was, now = pair
    return isinstance(was, int | float) and isinstance(now, int | float) and now < was


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 40 else f"{text[:37]}..."


def _when(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M %Z")
