"""How paid things come and go, the same on every platform that has a create call which can get lost.

The rules (docs/architecture.md, "Money"): the label is in the very call that creates; a create whose answer is
uncertain is looked up, never repeated blindly; only a complete list counts as "none"; a delete is done when the
platform says that the thing is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from providers.base import AuthError, CreateUncertain, Interrupted, PlatformError
from providers.native import Context


class Thing(Protocol):
    """Something that is paid for."""

    @property
    def id(self) -> str: ...

    @property
    def label(self) -> str: ...


T = TypeVar("T", bound=Thing)

LOOKUP_PAUSES_S = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Waits before each look for a thing whose create answer was lost: lists lag behind creates."""
GONE_PAUSES_S = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Waits before each question whether a deleted thing is gone."""
_TRIES = 4


def ensure_one(
    context: Context,
    label: str,
    *,
    create: Callable[[], T],
    labelled: Callable[[str], Sequence[T]],
    destroy: Callable[[str], None],
    same: Callable[[T], bool],
) -> T:
    """Exactly one thing under `label`: what an earlier, interrupted create left if it is the `same`, else a new one.

    `labelled` must return the complete list or raise. `create` raises `CreateUncertain` when its answer is lost.

    Raises:
        PlatformError: when it is not certain that there is exactly one; the text says what may be billed.
    """
    left = list(patiently(context, lambda: labelled(label)))
    keep = next((thing for thing in left if same(thing)), None)
    for thing in left:
        if keep is None or thing.id != keep.id:
            context.progress(f"destroying {thing.id}, left by an interrupted create")
            patiently(context, lambda thing=thing: destroy(thing.id))
    if keep is not None:
        context.progress(f"adopting {keep.id}, left by an interrupted create")
        return keep
    try:
        return create()
    except CreateUncertain as error:
        return _found_after(context, label, error, labelled, destroy)


def ensure_gone(context: Context, id: str, *, destroy: Callable[[str], None], exists: Callable[[str], bool]) -> None:
    """Destroy, and return once the platform says that it is gone. What is gone already is success.

    Raises:
        PlatformError: when it still exists after all; the id stays in state.
    """
    patiently(context, lambda: destroy(id))
    for pause in GONE_PAUSES_S:
        context.wait(pause)
        if not patiently(context, lambda: exists(id)):
            return
    raise PlatformError(f"{id} was deleted but still exists, and may be billed; `pulumi destroy` tries again")


def _found_after(
    context: Context,
    label: str,
    lost: CreateUncertain,
    labelled: Callable[[str], Sequence[T]],
    destroy: Callable[[str], None],
) -> T:
    unseen = (
        f"{lost}. Nothing is listed under {label}, but something may still appear there and be billed: "
        "`pulumi up` looks again and adopts it, `pulumi destroy` does not know it"
    )
    for pause in LOOKUP_PAUSES_S:
        try:
            context.wait(pause)
        except Interrupted as error:
            raise Interrupted(f"{error}: {unseen}") from lost
        try:
            found = list(labelled(label))
        except PlatformError:
            continue
        if found:
            for extra in found[1:]:
                patiently(context, lambda extra=extra: destroy(extra.id))
            return found[0]
    raise PlatformError(unseen) from lost


R = TypeVar("R")


def patiently(context: Context, call: Callable[[], R]) -> R:
    """A call that may be repeated safely, a few times over."""
    for attempt in range(_TRIES - 1):
        try:
            return call()
        except AuthError:
            # A refused key is refused again.
            raise
        except PlatformError as error:
            context.progress(f"trying again: {error}")
            context.wait(2.0**attempt)
    return call()
