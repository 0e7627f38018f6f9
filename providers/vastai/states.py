"""What to do about an instance, from what the platform says of it: one table, as a pure function.

States: https://docs.vast.ai/documentation/instances/manage-instances and the CLI's own list. `actual_status` null is
provisioning; `exited` is a container that ended; `unknown` and `offline` are a host that is not heard from. All of
`cur_state`, `intended_status` and `next_state` being `stopped` means outbid, out of credit, expired or stopped by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PROVISION_S = 300.0
"""Most seconds before a host starts to load; seconds when it goes well."""
GRACE_S = 300.0
"""Seconds that a host may be silent, or a running container without an address, before it is given up."""
END_NOTICE_S = 24 * 3600.0
"""A rental that ends sooner than this is replaced while it still serves."""

_BROKEN = ("oci runtime create failed", "failed to create", "error response from daemon", "no space left on device")

Do = Literal["keep", "wait", "replace", "rebid", "surface", "recreate"]
"""
    keep      it serves
    wait      give it time
    replace   get another one, then destroy this one: it bills, or will when its host comes back
    rebid     bid more in place, or replace it
    surface   nothing that another host would cure; tell the user
    recreate  it is gone
"""


@dataclass(frozen=True)
class Seen:
    """An instance as one answer shows it.

    Attributes:
        status: `actual_status`; "" for null.
        stopped: current, intended and next state are all `stopped`.
        addressed: it has a public address and a host port.
        answers: whether the server answered; None when nobody asked.
        age_s: seconds in this status, as far as the watcher knows.
        end_in_s: seconds to the rental's end date; None when it isn't known.
        credit: the account's balance in US dollars is above zero; None when nobody asked.
    """

    status: str
    message: str = ""
    stopped: bool = False
    is_bid: bool = False
    addressed: bool = False
    answers: bool | None = None
    age_s: float = 0.0
    load_limit_s: float = 1800.0
    end_in_s: float | None = None
    credit: bool | None = None


@dataclass(frozen=True)
class Verdict:
    """What to do and why. `blame_host`: do not rent that machine again. `logs`: read the logs before destroying."""

    do: Do
    why: str
    blame_host: bool = False
    logs: bool = False


def action_for(seen: Seen | None) -> Verdict:
    """The table. None is an instance that the platform does not know any more."""
    if seen is None:
        return Verdict("recreate", "it is gone")
    if seen.end_in_s is not None and seen.end_in_s <= 0:
        return Verdict("replace", "its rental has ended")
    if seen.stopped or seen.status == "stopped":
        return _stopped(seen)
    match seen.status:
        case "" | "created" | "loading" | "rebooting":
            return _starting(seen)
        case "running":
            return _running(seen)
        case "exited":
            return Verdict("replace", f"its container has ended{_message(seen)}", logs=True)
        case "offline" | "unknown":
            return _silent(seen)
        case "frozen":
            return Verdict("replace", "it is frozen, and bills as if it ran", blame_host=True)
        case other:
            # New words appear (skypilot-org/skypilot#9319 crashed on one): give them the time that loading gets.
            return _late(seen, f"its status is `{other}`", seen.load_limit_s)


def _stopped(seen: Seen) -> Verdict:
    if seen.credit is False:
        return Verdict("surface", "the account has no credit left, so the platform stopped it; its disk still bills")
    if seen.is_bid:
        return Verdict("rebid", "it was outbid; its disk still bills")
    if seen.credit:
        # Started again, it may wait for its GPUs for ever (docs.vast.ai, troubleshooting).
        return Verdict("replace", "it was stopped and has given its GPUs up; its disk still bills")
    return Verdict("surface", "it is stopped, by hand or for lack of credit; its disk still bills")


def _starting(seen: Seen) -> Verdict:
    if any(text in seen.message.lower() for text in _BROKEN):
        return Verdict("replace", f"its host can't start it{_message(seen)}", blame_host=True, logs=True)
    limit = seen.load_limit_s if seen.status in ("loading", "rebooting") else min(PROVISION_S, seen.load_limit_s)
    return _late(seen, f"it is {seen.status or 'being provisioned'}", limit)


def _running(seen: Seen) -> Verdict:
    if not seen.addressed:
        return _late(seen, "it runs without a public address", GRACE_S)
    if seen.end_in_s is not None and seen.end_in_s < END_NOTICE_S:
        return Verdict("replace", f"its rental ends in {seen.end_in_s / 3600:.0f} h")
    if seen.answers is False:
        return _late(seen, "it runs but the server does not answer", seen.load_limit_s)
    return Verdict("keep", "it runs")


def _silent(seen: Seen) -> Verdict:
    return _late(seen, f"its host is {'offline' if seen.status == 'offline' else 'not heard from'}", GRACE_S)


def _late(seen: Seen, what: str, limit_s: float) -> Verdict:
    if seen.age_s < limit_s:
        return Verdict("wait", f"{what}, {seen.age_s:.0f} s of {limit_s:.0f}{_message(seen)}")
    return Verdict("replace", f"{what} after {seen.age_s:.0f} s{_message(seen)}", blame_host=True, logs=True)


def _message(seen: Seen) -> str:
    text = " ".join(seen.message.split())[:200]
    return f" ({text})" if text else ""
