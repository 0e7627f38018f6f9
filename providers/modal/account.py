"""The Modal account: token, what runs, and everything on it that carries a label of ours, in every environment."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from decimal import Decimal

from providers.account import Balance, Check, Holding, label_from
from providers.modal.apps import App
from providers.modal.client import Modal, connect
from providers.modal.labels import split_id, words_in
from providers.modal.pricing import hourly_usd
from providers.modal.volumes import VolumeResource
from providers.native import Context

BILLING = "https://modal.com/settings/usage"


class ModalAccount:
    """One account."""

    def __init__(self, cloud: Modal) -> None:
        self._cloud = cloud

    def identify(self) -> str:
        return f"Modal takes the token of the workspace {self._cloud.workspace()}; whether it may deploy shows at `up`"

    def balance(self) -> Balance:
        """Modal tells what was used, not what is left of the credits."""
        running = [self._app(id)[1] for id in self._apps()]
        return Balance(None, sum((usd for usd in running if usd is not None), Decimal(0)), BILLING)

    def regions(self) -> frozenset[str] | None:
        # Modal has regions, and no call that lists them.
        return None

    def checks(self) -> list[Check]:
        return []

    def holdings(self, stacks: Collection[str]) -> list[Holding]:
        return [*self._ours(), *self._volumes(stacks)]

    def release(self, context: Context, holding: Holding) -> None:
        if holding.kind == "app":
            App().delete_in(self._cloud, context, holding.id, holding.label)
        else:
            VolumeResource().delete_in(self._cloud, context, holding.id)

    def _ours(self) -> Iterator[Holding]:
        for id in self._apps():
            found = self._cloud.app(id)
            if found is not None and found.label:
                status, hourly = self._app(id)
                yield Holding("app", id, found.label, status, hourly)

    def _volumes(self, stacks: Collection[str]) -> Iterator[Holding]:
        # A volume has no tags: its name has to be that of a known stack.
        for environment in self._cloud.environments():
            for id in self._cloud.volumes_in(environment):
                if label := label_from(words_in(split_id(id)[1]), "-", stacks):
                    yield Holding("volume", id, label, "", None)

    def _apps(self) -> Iterator[str]:
        for environment in self._cloud.environments():
            yield from self._cloud.apps_in(environment)

    def _app(self, id: str) -> tuple[str, Decimal | None]:
        """How many containers an app has, and what they cost an hour; None when that isn't known."""
        shape, load = self._cloud.shape(id), self._cloud.load(id)
        if shape is None or load is None:
            return "no web server of ours", None
        each = hourly_usd(shape.gpus, shape.cpu, shape.memory_mib, shape.regions)
        return f"{load.containers} containers", None if each is None else each * load.containers


def open_account(timeout_s: float) -> ModalAccount:
    """The account whose token is in the environment.

    Raises:
        AuthError: there is none.
    """
    return ModalAccount(connect(lambda seconds: False, ask_timeout_s=timeout_s))
