"""Serverless endpoints and workergroups against the emulator: experimental, and never tried on Vast.ai."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from emulators.faults import Fault, Kind
from emulators.vastai import VastEmulator, offer_row

from providers.base import PlatformError
from providers.native import Context
from providers.vastai import client
from providers.vastai.serverless import (
    Endpoint,
    EndpointInputs,
    Workergroup,
    WorkergroupInputs,
    endpoint_name,
)

INPUTS = EndpointInputs(label="shop/dev/server/1", max_workers=3)
ENDPOINT, WORKERS = Endpoint(), Workergroup()


def context() -> Context:
    ticks = itertools.count()
    return Context(
        "urn", lambda text: None, lambda s: False, lambda: float(next(ticks)), lambda: datetime(2026, 1, 1, tzinfo=UTC)
    )


@pytest.fixture
def market(monkeypatch: pytest.MonkeyPatch) -> Iterator[VastEmulator]:
    with VastEmulator([offer_row(1)]) as found:
        monkeypatch.setenv("VAST_API_KEY", found.key)
        monkeypatch.setenv("VLLM_ANYWHERE_VASTAI_URL", found.url)
        monkeypatch.setattr(client, "_SLOTS", {})
        monkeypatch.setattr(client, "connect", _hasty(client.connect))
        yield found
        assert found.violations == []


def _hasty(connect: Any) -> Any:
    return lambda clock, wait: connect(clock, wait, timeout=httpx.Timeout(0.2))


def test_an_endpoint_and_its_workers_come_change_and_go(market: VastEmulator) -> None:
    made = ENDPOINT.create(context(), INPUTS)
    assert made.outputs.endpoint == "https://openai.vast.ai/shop-dev-server-1/v1"
    group = WorkergroupInputs(
        endpoint_id=made.id, endpoint_name=made.outputs.name, template_hash="abcdef0123", search="num_gpus=1"
    )
    workers = WORKERS.create(context(), group)
    assert market.jobs.rows["autojobs"][int(workers.id)]["endpoint_id"] == int(made.id)
    ENDPOINT.update(context(), made.id, made.outputs, INPUTS, INPUTS.model_copy(update={"max_workers": 5}))
    assert market.jobs.rows["endptjobs"][int(made.id)]["max_workers"] == 5
    WORKERS.update(context(), workers.id, workers.outputs, group, group.model_copy(update={"gpu_ram_gb": 48}))
    assert market.jobs.rows["autojobs"][int(workers.id)]["gpu_ram"] == 48
    WORKERS.delete(context(), workers.id, workers.outputs)
    ENDPOINT.delete(context(), made.id, made.outputs)
    ENDPOINT.delete(context(), made.id, made.outputs)
    assert market.jobs.rows == {"endptjobs": {}, "autojobs": {}}


def test_refresh_shows_who_changed_the_scaling(market: VastEmulator) -> None:
    made = ENDPOINT.create(context(), INPUTS)
    same = ENDPOINT.read(context(), made.id, INPUTS, made.outputs)
    assert same is not None and same.inputs.model_dump_json() == INPUTS.model_dump_json()
    market.jobs.rows["endptjobs"][int(made.id)]["max_workers"] = 20
    found = ENDPOINT.read(context(), made.id, INPUTS, made.outputs)
    assert found is not None and found.inputs.max_workers == 20
    assert "never-show-this" not in found.outputs.model_dump_json() + found.inputs.model_dump_json()
    market.jobs.rows["endptjobs"].clear()
    assert ENDPOINT.read(context(), made.id, INPUTS, made.outputs) is None


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.KILL, Kind.KILL_BEFORE)])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_a_call_that_fails_leaves_one_endpoint_after_one_up_or_two(
    market: VastEmulator, method: str, kind: Kind
) -> None:
    market.faults.add(Fault(method=method, path="/endptjobs/", kind=kind))
    try:
        made = ENDPOINT.create(context(), INPUTS)
    except PlatformError:
        made = ENDPOINT.create(context(), INPUTS)
    assert [str(id) for id in market.jobs.rows["endptjobs"]] == [made.id]


def test_an_endpoint_whose_scaling_was_not_taken_keeps_its_id(market: VastEmulator) -> None:
    market.faults.add(Fault(method="PUT", path="/endptjobs/", kind=Kind.REFUSED, times=0))
    made = ENDPOINT.create(context(), INPUTS)
    assert [str(id) for id in market.jobs.rows["endptjobs"]] == [made.id]
    assert "exists, but may scale otherwise" in made.problem


def test_workers_that_were_left_behind_are_destroyed(market: VastEmulator) -> None:
    made = ENDPOINT.create(context(), INPUTS)
    vast = client.Vast(market.key, market.url)
    worker = vast.rent(1, {"image": "i", "label": "worker", "disk": 10, "env": {"-p 8000:8000": "1"}})
    market.jobs.stuck = [int(worker)]
    ENDPOINT.delete(context(), made.id, made.outputs)
    assert market.instances == {}


def test_an_endpoints_name_fits_into_a_url() -> None:
    assert endpoint_name("shop/dev/my server/2") == "shop-dev-my-server-2"


def test_a_share_that_is_none_is_refused() -> None:
    assert [failure.property for failure in ENDPOINT.check({"target_util": 1.5})] == ["target_util"]
    assert ENDPOINT.check({"target_util": 0.5}) == []
