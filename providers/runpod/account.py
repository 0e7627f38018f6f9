"""The RunPod account: key, balance, data centres, and everything on it that carries a label of ours."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from decimal import Decimal, InvalidOperation

import httpx

from providers.account import Balance, Check, Holding, is_label, label_from
from providers.native import Context
from providers.proxies import heeded_for
from providers.runpod import answers
from providers.runpod.answers import Answer
from providers.runpod.client import Forbidden, Refused, RunPod, Urls, connect, key_from, urls_from
from providers.runpod.endpoints import EndpointResource
from providers.runpod.pods import PodResource
from providers.runpod.pricing import hurry, volume_hourly_usd
from providers.runpod.vault import SecretResource
from providers.runpod.volumes import RegistryResource, VolumeResource
from serving import VERSION

BILLING = "https://console.runpod.io/user/billing"

LAG_S = 2.0
"""Seconds after which a second list has what the first did not have yet."""

_ORDER = ("endpoint", "pod", "volume")
_SECRETS = "/v2/account/secrets"
_OUR_SECRET = re.compile(r"va_(\w+)_[0-9a-f]{8}")
_UNBILLED = ("THROTTLED",)
"""Workers that wait for a GPU."""


class DataCenter(Answer):
    """One row of `GET /v2/catalog/datacenters`."""

    id: str


class RunPodAccount:
    """One account. `spending` asks for the balance and US dollars an hour, None when nobody says.

    `pause(seconds)` waits between two looks at the lists.
    """

    def __init__(
        self,
        cloud: RunPod,
        spending: Callable[[], tuple[Decimal, Decimal] | None],
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._cloud = cloud
        self._spending = spending
        self._pause = pause

    def identify(self) -> str:
        pods = self._cloud.all("/v2/pods", "pods", answers.Pod)
        return f"RunPod takes the key, and it may list pods ({len(pods)}); whether it may rent shows at `up`"

    def balance(self) -> Balance | None:
        known = self._spending()
        if known is None:
            pods = sum((pod.cost for pod in self._cloud.all("/v2/pods", "pods", answers.Pod)), Decimal(0))
            workers = self._workers(self._cloud.all("/v2/serverless", "endpoints", answers.Endpoint))
            return Balance(None, pods + sum((hourly or Decimal(0) for *_, hourly in workers), Decimal(0)), BILLING)
        return Balance(*known, BILLING)

    def regions(self) -> frozenset[str] | None:
        return frozenset(row.id for row in self._cloud.all("/v2/catalog/datacenters", "dataCenters", DataCenter))

    def checks(self) -> list[Check]:
        if self._secrets() is None:
            text = "this key can't use RunPod's secret store, so a pod's environment shows its API key in clear"
            page = "https://console.runpod.io/user/settings"
            return [Check("secrets", "warning", text, f"give the key access to secrets at {page}")]
        return [Check("secrets", "ok", "API keys go to RunPod's secret store")]

    def holdings(self, stacks: Collection[str]) -> list[Holding]:
        # Lists lag behind creates, so that what is paid for is looked for twice.
        found = self._paid()
        self._pause(LAG_S)
        found.update(self._paid())
        return [
            *sorted(found.values(), key=lambda one: _ORDER.index(one.kind)),
            *self._registries(),
            *secret_holdings(self._secrets() or [], stacks),
        ]

    def release(self, context: Context, holding: Holding) -> None:
        match holding.kind:
            case "endpoint":
                EndpointResource().delete_in(self._cloud, context, holding.id)
            case "pod":
                PodResource().delete_in(self._cloud, context, holding.id)
            case "volume":
                VolumeResource().delete_in(self._cloud, context, holding.id)
            case "registry login":
                RegistryResource().delete_in(self._cloud, context, holding.id)
            case _:
                SecretResource().delete_in(self._cloud, context, holding.id)

    def _paid(self) -> dict[str, Holding]:
        return {one.id: one for one in (*self._endpoints(), *self._pods(), *self._volumes())}

    def _endpoints(self) -> Iterator[Holding]:
        found = self._cloud.all("/v2/serverless", "endpoints", answers.Endpoint)
        for one, workers, hourly in self._workers([one for one in found if is_label(one.label)]):
            yield Holding("endpoint", one.id, one.label, f"{workers} workers", hourly, one.created_at)

    def _workers(
        self, endpoints: Collection[answers.Endpoint]
    ) -> Iterator[tuple[answers.Endpoint, int, Decimal | None]]:
        """Each endpoint with how many workers it has, and what those are listed at, US dollars an hour together."""
        prices = {row.id: row.price.serverless for row in self._cloud.gpu_types()} if endpoints else {}
        for one in endpoints:
            workers = self._cloud.all(f"/v2/serverless/{one.id}/workers", "workers", answers.Worker)
            billed = [worker for worker in workers if worker.status not in _UNBILLED and worker.gpu_type_id]
            each = [prices.get(worker.gpu_type_id or "") for worker in billed]
            known = [price for price in each if price is not None]
            count = one.gpu.count if one.gpu else 1
            yield one, len(workers), sum(known, Decimal(0)) * count if len(known) == len(each) else None

    def _pods(self) -> Iterator[Holding]:
        for one in self._cloud.all("/v2/pods", "pods", answers.Pod):
            if is_label(one.label) and one.status != "TERMINATED":
                yield Holding("pod", one.id, one.label, one.status.lower(), one.cost, one.created_at)

    def _volumes(self) -> Iterator[Holding]:
        for one in self._cloud.all("/v2/network-volumes", "networkVolumes", answers.NetworkVolume):
            if is_label(one.label):
                yield Holding("volume", one.id, one.label, f"{one.size} GB", volume_hourly_usd(one.size))

    def _registries(self) -> Iterator[Holding]:
        for one in self._cloud.all("/v2/registries", "registries", answers.Named):
            if is_label(one.label):
                yield Holding("registry login", one.id, one.label, "", Decimal(0))

    def _secrets(self) -> list[answers.Named] | None:
        """The account's secrets; None where there is no store, or none that this key may use."""
        try:
            return self._cloud.all(_SECRETS, "secrets", answers.Named)
        except Forbidden:
            return None
        except Refused as error:
            if error.status in (404, 405, 410):
                return None
            raise


def secret_holdings(secrets: Collection[answers.Named], stacks: Collection[str]) -> Iterator[Holding]:
    """Our secrets: `vault.name_of` puts a label into what a secret's name can hold."""
    for one in secrets:
        if found := _OUR_SECRET.fullmatch(one.name):
            yield Holding("secret", one.id, label_from(found[1], "_", stacks) or one.name, "", Decimal(0))


def ask_balance(
    key: str, urls: Urls, timeout_s: float, transport: httpx.BaseTransport | None = None
) -> tuple[Decimal, Decimal] | None:
    """Balance and spending an hour in US dollars; None when RunPod doesn't say.

    REST v2 has neither. GraphQL, which is being retired, still has: `myself { clientBalance currentSpendPerHr }`.
    """
    headers = {"Authorization": f"Bearer {key}", "User-Agent": f"vllm-anywhere/{VERSION}"}
    query = {"query": "query { myself { clientBalance currentSpendPerHr } }"}
    try:
        with httpx.Client(
            transport=transport, headers=headers, timeout=timeout_s, trust_env=heeded_for(urls.api)
        ) as http:
            answer = http.post(f"{urls.api}/graphql", json=query)
        myself = json.loads(answer.text, parse_float=Decimal)["data"]["myself"]
        return Decimal(myself["clientBalance"]), Decimal(myself["currentSpendPerHr"] or 0)
    except (httpx.HTTPError, ValueError, KeyError, TypeError, InvalidOperation):
        return None


def open_account(timeout_s: float) -> RunPodAccount:
    """The account whose key is in the environment.

    Raises:
        AuthError: when there is none.
    """
    key, urls = key_from(os.environ), urls_from(os.environ)

    def pause(seconds: float) -> None:
        if seconds > timeout_s:
            hurry(seconds)
        time.sleep(seconds)

    return RunPodAccount(connect(pause, timeout_s=timeout_s), lambda: ask_balance(key, urls, timeout_s))
