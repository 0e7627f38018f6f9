"""What the emulated RunPod account says it spends while no balance is to be had."""

from __future__ import annotations

from decimal import Decimal

from emulators.runpod import RunPodEmulator
from runpod_wire import POD, QUEUE, client_of, created

from providers.account import Balance
from providers.runpod.account import BILLING, RunPodAccount
from providers.runpod.client import RunPod, urls_from


def test_without_a_balance_pods_and_workers_both_count_as_spending() -> None:
    with RunPodEmulator() as runpod, client_of(runpod) as api:
        # Nothing here asks a model anything, so that no server has to start.
        runpod.boot(start_s=3600)
        runpod.options(list_lag=0)
        cloud = RunPod(runpod.key, urls_from(runpod.env()), pause=lambda seconds: None)
        account = RunPodAccount(cloud, lambda: None, pause=lambda seconds: None)
        pod = created(api, "/v2/pods", POD)
        assert account.balance() == Balance(None, Decimal(str(pod["cost"])), BILLING)
        created(api, "/v2/serverless", {**QUEUE, "workers": {"min": 2, "max": 2, "idleTimeout": 5}})
        workers = next(one.hourly_usd for one in account.holdings(()) if one.kind == "endpoint")
        assert workers
        assert account.balance() == Balance(None, Decimal(str(pod["cost"])) + workers, BILLING)
        cloud.close()
