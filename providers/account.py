"""What an account on a platform can be asked: does its key work, what is left on it, what of ours is there.

A platform's `account.py` has `open_account(timeout_s) -> Account`. `vllm-anywhere doctor` and `orphans` know nothing
else of a platform.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol

from providers.base import PACKAGES, PlatformError
from providers.native import OWNER, Context

Verdict = Literal["ok", "warning", "failed"]

_LABEL = re.compile(rf"[\w.-]+/[\w.-]+/[\w.-]+/\d+(-{OWNER})?")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: the verdict, what it means in a sentence, and the command that comes next."""

    name: str
    verdict: Verdict
    text: str
    next: str = ""


@dataclass(frozen=True)
class Balance:
    """What is left, US dollars, None where the platform doesn't say; and what everything on it costs an hour now.

    `page` is where it can be seen and raised.
    """

    usd: Decimal | None
    hourly_usd: Decimal
    page: str


@dataclass(frozen=True)
class Holding:
    """One thing on a platform that carries a label of ours.

    `hourly_usd` is what it costs now, None when that isn't known. `label` is `project/stack/resource/generation-owner`,
    or the name that the platform has for it where that can't hold a label. `since` is the platform's own date.
    """

    kind: str
    id: str
    label: str
    status: str
    hourly_usd: Decimal | None
    since: str = ""


class Account(Protocol):
    """One account. Every method asks the platform; what it can't answer is a `PlatformError`, never an empty answer."""

    def identify(self) -> str:
        """Who we are to the platform, as a sentence.

        Raises:
            AuthError: the key is refused.
        """
        ...

    def balance(self) -> Balance | None:
        """What is left; None where nothing is ever billed."""
        ...

    def regions(self) -> frozenset[str] | None:
        """The names of the places that can be chosen now; None where places have no names."""
        ...

    def checks(self) -> Sequence[Check]:
        """What else can be wrong on this platform alone."""
        ...

    def holdings(self, stacks: Collection[str]) -> list[Holding]:
        """Everything with a label of ours, in the order in which it can be deleted.

        `stacks` are the known ones, each `project/stack`: where a platform's names can't hold a label, only what is
        named after one of them counts as ours.

        Raises:
            PlatformError: the list is not certain to be complete.
        """
        ...

    def release(self, context: Context, holding: Holding) -> None:
        """Delete it, and return once the platform says that it is gone.

        Raises:
            PlatformError: it is not certain to be gone.
        """
        ...


class Opener(Protocol):
    """How an account is opened: nothing is asked yet.

    Raises:
        AuthError: there is no key; the text says where to get one.
    """

    def __call__(self, timeout_s: float) -> Account: ...


def load_account(platform: str) -> Opener:
    """The platform's `open_account`; imports only that platform's folder.

    Raises:
        PlatformError: the platform has none.
    """
    name = f"{PACKAGES[platform]}.account" if platform in PACKAGES else ""
    if not name or importlib.util.find_spec(name) is None:
        raise PlatformError(f"vllm-anywhere can't look into an account on {platform}; look in its own console")
    return importlib.import_module(name).open_account


def is_label(name: str) -> bool:
    """Whether a name has the form of our labels."""
    return _LABEL.fullmatch(name) is not None


def label_from(name: str, separator: str, stacks: Iterable[str]) -> str:
    """The label behind a name that has `separator` for all but letters and digits; "" if it is of no known stack."""
    for stack in sorted(stacks, key=len, reverse=True):
        start = re.sub(r"[^A-Za-z0-9]+", separator, stack) + separator
        rest = name.removeprefix(start)
        between = re.escape(separator)
        if rest != name and (found := re.fullmatch(rf"(.+?){between}(\d+)(?:{between}({OWNER}))?", rest)):
            return f"{stack}/{found[1]}/{found[2]}{f'-{found[3]}' if found[3] else ''}"
    return ""
