"""The Vast.ai account: key, credit, and everything on it that carries a label of ours."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from decimal import Decimal

import httpx

from providers.account import Balance, Check, Holding, is_label, label_from
from providers.lifecycle import ensure_gone
from providers.native import Context
from providers.vastai.client import Vast, connect
from providers.vastai.instances import VastInstance
from providers.vastai.offers import STORAGE_MONTH_HOURS
from providers.vastai.serverless import Endpoint, EndpointOutputs, Job, Jobs, Workergroup, WorkergroupOutputs

BILLING = "https://cloud.vast.ai/billing/"


class VastaiAccount:
    """One account."""

    def __init__(self, vast: Vast) -> None:
        self._vast = vast

    def identify(self) -> str:
        self._vast.credit()
        return "Vast.ai takes the key; whether it may rent shows at `up`"

    def balance(self) -> Balance | None:
        running = [hourly_usd(one) for one in self._vast.instances()]
        return Balance(self._vast.credit(), sum((usd for usd in running if usd is not None), Decimal(0)), BILLING)

    def regions(self) -> frozenset[str] | None:
        return None

    def checks(self) -> list[Check]:
        return []

    def holdings(self, stacks: Collection[str]) -> list[Holding]:
        return [
            *_jobs(Jobs(self._vast, "autojobs").all(), "workergroup", stacks),
            *_jobs(Jobs(self._vast, "endptjobs").all(), "endpoint", stacks),
            *(
                Holding("instance", one.id, one.label, _status(one), hourly_usd(one), _date(one.start_date))
                for one in self._vast.instances()
                if is_label(one.label)
            ),
        ]

    def release(self, context: Context, holding: Holding) -> None:
        match holding.kind:
            case "endpoint":
                Endpoint().delete(context, holding.id, EndpointOutputs(label=holding.label, name="", endpoint=""))
            case "workergroup":
                Workergroup().delete(context, holding.id, WorkergroupOutputs(label=holding.label, endpoint_name=""))
            case _:
                vast = connect(context.clock, context.wait)
                ensure_gone(context, holding.id, destroy=vast.destroy, exists=lambda id: vast.get(id) is not None)


def hourly_usd(one: VastInstance) -> Decimal | None:
    """US dollars an hour now: a stopped instance still pays for its disk. None when the answer has no price."""
    disk = (one.disk_space or Decimal(0)) * (one.storage_cost or Decimal(0)) / STORAGE_MONTH_HOURS
    if one.stopped:
        return disk
    return None if one.dph_base is None else one.dph_base + disk


def _jobs(jobs: Collection[Job], kind: str, stacks: Collection[str]) -> Iterator[Holding]:
    # The name of an endpoint holds a label without its slashes, which anybody's may look like.
    for job in jobs:
        if label := label_from(job.label, "-", stacks):
            yield Holding(kind, job.id, label, "", Decimal(0))


def _status(one: VastInstance) -> str:
    return "stopped" if one.stopped else one.actual_status or "unknown"


def _date(seconds: Decimal | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(float(seconds), UTC).isoformat(timespec="seconds")


def open_account(timeout_s: float) -> VastaiAccount:
    """The account whose key is in the environment.

    Raises:
        AuthError: when there is none.
    """
    return VastaiAccount(connect(timeout=httpx.Timeout(timeout_s)))
