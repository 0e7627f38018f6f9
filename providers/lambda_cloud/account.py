"""The Lambda account: its key, its regions, and everything on it that carries a label of ours."""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal

from providers.account import Balance, Check, Holding, is_label
from providers.lambda_cloud.client import PLATFORM, Lambda, connect
from providers.lambda_cloud.rent import drop_rules, give_back
from providers.native import Context
from serving.places import all_places

BILLING = "https://cloud.lambda.ai/settings/billing"


class LambdaAccount:
    """One account."""

    def __init__(self, cloud: Lambda) -> None:
        self._cloud = cloud

    def identify(self) -> str:
        self._cloud.types()
        return "Lambda takes the key"

    def balance(self) -> Balance | None:
        rented = [one.instance_type.hourly_usd for one in self._cloud.instances()]
        return Balance(None, sum(rented, Decimal(0)), BILLING)

    def regions(self) -> frozenset[str] | None:
        return frozenset(place.region for place in all_places(PLATFORM))

    def checks(self) -> list[Check]:
        return []

    def holdings(self, stacks: Collection[str]) -> list[Holding]:
        instances = [one for one in self._cloud.instances() if is_label(one.label)]
        # What an instance needs goes with it; no state has an id of its rules.
        served = {one.label for one in instances}
        rules = [one for one in self._cloud.rulesets() if one.label and one.label not in served]
        return [
            *(Holding("instance", one.id, one.label, one.status, one.instance_type.hourly_usd) for one in instances),
            *(Holding("firewall rules", one.id, one.label, "", Decimal(0)) for one in rules),
        ]

    def release(self, context: Context, holding: Holding) -> None:
        if holding.kind == "instance":
            give_back(self._cloud, context, holding.id, holding.label)
        else:
            drop_rules(self._cloud, context, holding.id)


def open_account(timeout_s: float) -> LambdaAccount:
    """The account whose key is in the environment.

    Raises:
        AuthError: when there is none.
    """
    return LambdaAccount(connect(timeout_s))
