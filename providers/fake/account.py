"""The account on the cloud that lives in memory."""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal

from providers.account import Balance, Check, Holding
from providers.fake.client import FakeCloud, cloud
from providers.lifecycle import ensure_gone
from providers.native import Context

_HOURLY_USD = Decimal("0.50")


class FakeAccount:
    """Nobody's account: it has no key and bills nobody."""

    def __init__(self, cloud: FakeCloud) -> None:
        self._cloud = cloud

    def identify(self) -> str:
        return "this cloud lives in memory and asks for no key"

    def balance(self) -> Balance | None:
        return None

    def regions(self) -> frozenset[str] | None:
        return None

    def checks(self) -> list[Check]:
        return []

    def holdings(self, stacks: Collection[str]) -> list[Holding]:
        return [
            Holding("instance", one.id, one.label, one.status, _HOURLY_USD if one.status == "running" else Decimal(0))
            for one in self._cloud.all()
        ]

    def release(self, context: Context, holding: Holding) -> None:
        ensure_gone(
            context,
            holding.id,
            destroy=self._cloud.destroy,
            exists=lambda id: self._cloud.get(id) is not None,
        )


def open_account(timeout_s: float) -> FakeAccount:
    """The cloud of this process."""
    return FakeAccount(cloud())
