"""`vllm-anywhere:runpod:Endpoint`: serverless workers behind RunPod's queue, or behind its load balancer.

Workers, scaling and time-outs change at once. What belongs to the container becomes a release that rolls over the
workers; an update is done when none of them runs the old one. What both are decided by is in `endpoint_terms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar

from pydantic import Field

from providers.base import Interrupted, PlatformError
from providers.lifecycle import ensure_gone, ensure_one
from providers.native import Context, Created, Failure, Found, NativeResource, Properties
from providers.runpod import answers
from providers.runpod.client import RunPod, Urls, connect
from providers.runpod.endpoint_terms import EndpointInputs, Pools, create_body, inputs_of, pools_for, update_body
from serving import NAMESPACE

ROLLOUT_TIMEOUT_S = 1200.0
"""Longest wait for a release; a worker's first pull of the image has taken 20 minutes on one host."""

_ROLLOUT_PAUSE_S = 5.0


class EndpointOutputs(Properties):
    """What was set up."""

    label: str = Field(description="project/stack/resource/generation-owner, which is the endpoint's name.")
    pools: list[str] = Field(description="GPU pools that workers may come from.")
    excluded: list[str] = Field(description="GPU types of those pools that they may not.")
    endpoint: str = Field(description="OpenAI base URL.")
    worker_hourly_usd: str = Field(description="List price of one worker that is up, of its dearest pool, USD an hour.")
    run: str = Field(description="Changes whenever workers run something else.")


class EndpointResource(NativeResource[EndpointInputs, EndpointOutputs]):
    """Lifecycle of an endpoint."""

    token: ClassVar[str] = "vllm-anywhere:runpod:Endpoint"
    doc: ClassVar[str] = "A RunPod serverless endpoint that serves one model with vLLM."
    inputs = EndpointInputs
    outputs = EndpointOutputs
    replace_on: ClassVar[frozenset[str]] = frozenset({"kind"})

    def check(self, inputs: Mapping[str, Any]) -> list[Failure]:
        failures: list[Failure] = []
        key = inputs.get("caller_key")
        if isinstance(key, str) and key.startswith("sk-"):
            failures.append(
                # A failure of a named property is shown by Pulumi with the property's value, secret or not.
                Failure(
                    "",
                    "RunPod's edge lets in RunPod keys alone, and this is one of ours. Make a key that may only use "
                    "this endpoint at https://console.runpod.io/user/settings, and set it: "
                    f"`pulumi config set --secret {NAMESPACE}:own_api_key`",
                )
            )
        if inputs.get("kind") == "LOAD_BALANCER" and inputs.get("scaler") == "QUEUE_DELAY":
            failures.append(Failure("scaler", "a load balancer has no queue; `REQUEST_COUNT` works"))
        return failures

    def create(self, context: Context, inputs: EndpointInputs) -> Created[EndpointOutputs]:
        return self.create_in(connect(context.wait), context, inputs)

    def create_in(self, cloud: RunPod, context: Context, inputs: EndpointInputs) -> Created[EndpointOutputs]:
        """`create`, in a given account."""
        pools = pools_for(cloud.gpu_types(), inputs)
        made = ensure_one(
            context,
            inputs.label,
            create=lambda: cloud.create("/v2/serverless", create_body(inputs, pools), answers.Endpoint, inputs.label),
            labelled=lambda label: cloud.labelled("/v2/serverless", "endpoints", answers.Endpoint, label),
            destroy=lambda id: _destroy(cloud, context, id),
            same=lambda one: one.type == inputs.kind and not update_body(one, inputs, pools),
        )
        asleep = "nothing is billed until a request comes" if not inputs.min_workers else _bills(inputs, pools)
        context.progress(f"{made.id} is set up on {', '.join(pools.names)}; {asleep}")
        return Created(made.id, _outputs(cloud.urls, made, pools, made.created_at))

    def read(
        self, context: Context, id: str, inputs: EndpointInputs | None, outputs: EndpointOutputs | None
    ) -> Found[EndpointInputs, EndpointOutputs] | None:
        return self.read_in(connect(context.wait), id, inputs, outputs)

    def read_in(
        self, cloud: RunPod, id: str, inputs: EndpointInputs | None, outputs: EndpointOutputs | None
    ) -> Found[EndpointInputs, EndpointOutputs] | None:
        """`read`, in a given account."""
        found = cloud.get(_path(id), answers.Endpoint)
        if found is None:
            return None
        gpu = found.gpu or answers.EndpointGpu()
        hourly = Decimal(outputs.worker_hourly_usd) if outputs and outputs.worker_hourly_usd else None
        there = Pools(gpu.pools, gpu.excluded_types, hourly)
        before = Pools(tuple(outputs.pools), tuple(outputs.excluded), hourly) if outputs else None
        run = outputs.run if outputs else found.created_at
        return Found(inputs_of(found, inputs, before), _outputs(cloud.urls, found, there, run))

    def update(
        self, context: Context, id: str, outputs: EndpointOutputs, old: EndpointInputs, new: EndpointInputs
    ) -> Created[EndpointOutputs]:
        return self.update_in(connect(context.wait), context, id, outputs, new)

    def update_in(
        self, cloud: RunPod, context: Context, id: str, outputs: EndpointOutputs, new: EndpointInputs
    ) -> Created[EndpointOutputs]:
        """`update`, in a given account."""
        found = cloud.get(_path(id), answers.Endpoint)
        if found is None:
            raise PlatformError(
                f"the endpoint {id} is gone, and nothing is billed for it; `pulumi refresh`, then `pulumi up` makes "
                "another"
            )
        pools = pools_for(cloud.gpu_types(), new)
        body = update_body(found, new, pools)
        if body:
            context.progress(f"changing {', '.join(sorted(body))}")
            found = cloud.patch(_path(id), body, answers.Endpoint)
        run = context.now().isoformat(timespec="seconds") if body.keys() & _ROLLS else outputs.run
        # An update that was cut short has nothing left to change, but may have left a release that still rolls out.
        return Created(id, _outputs(cloud.urls, found, pools, run), rolled_out(cloud, context, id))

    def delete(self, context: Context, id: str, outputs: EndpointOutputs) -> None:
        self.delete_in(connect(context.wait), context, id)

    def delete_in(self, cloud: RunPod, context: Context, id: str) -> None:
        """`delete`, in a given account."""

        def exists(id: str) -> bool:
            found = cloud.get(_path(id), answers.Endpoint)
            if found is not None:
                context.progress(f"{id} is still there, with at most {found.workers.max} workers")
            return found is not None

        ensure_gone(context, id, destroy=lambda id: _destroy(cloud, context, id), exists=exists)


_ROLLS = frozenset({"image", "args", "env", "disk", "ports", "registry"})
"""Parts of a change that make a release."""


def base_url(urls: Urls, found: answers.Endpoint) -> str:
    """The OpenAI base URL, by the URLs that RunPod itself names where it does."""
    if found.type == "LOAD_BALANCER":
        return (found.request_urls.base or urls.balancer.format(id=found.id)).rstrip("/") + "/v1"
    named = found.request_urls.run.removesuffix("/run")
    return (named or f"{urls.jobs}/{found.id}") + "/openai/v1"


def _destroy(cloud: RunPod, context: Context, id: str) -> None:
    """Stop the spending first: a delete that RunPod refuses, or reports and does not do, then costs nothing."""
    context.progress(f"taking the workers of {id} down, then deleting it")
    try:
        cloud.patch(_path(id), {"workers": {"min": 0, "max": 0}}, answers.Endpoint)
    except Interrupted:
        raise
    except PlatformError as error:
        context.progress(f"the workers of {id} could not be taken down first: {error}")
    cloud.delete(_path(id))


def rolled_out(cloud: RunPod, context: Context, id: str) -> str:
    """Wait until no worker runs an older release; the problem when some still do, "" when none does."""
    limit = context.timeout_s or ROLLOUT_TIMEOUT_S
    begun = context.clock()
    while True:
        try:
            workers = cloud.all(f"{_path(id)}/workers", "workers", answers.Worker)
        except Interrupted:
            raise
        except PlatformError as error:
            context.progress(f"asking for the workers of {id} failed: {error}")
        else:
            stale = [worker for worker in workers if worker.is_stale]
            if not stale:
                return ""
            context.progress(f"{len(stale)} of {len(workers)} workers still run the release before")
        if context.clock() - begun > limit:
            return (
                f"after {limit:.0f} s workers of {id} still run the release before; they go on answering, and are "
                "billed. `pulumi up` waits again, `vllm-anywhere logs` shows what the new ones say"
            )
        context.wait(_ROLLOUT_PAUSE_S)


def _outputs(urls: Urls, found: answers.Endpoint, pools: Pools, run: str) -> EndpointOutputs:
    return EndpointOutputs(
        label=found.label,
        pools=sorted(pools.names),
        excluded=sorted(pools.excluded),
        endpoint=base_url(urls, found),
        worker_hourly_usd=f"{pools.hourly:f}" if pools.hourly is not None else "",
        run=run,
    )


def _bills(inputs: EndpointInputs, pools: Pools) -> str:
    if pools.hourly is None:
        return f"{inputs.min_workers} workers are billed from now on"
    return f"{inputs.min_workers} workers bill up to ${pools.hourly * inputs.min_workers:f} an hour from now on"


def _path(id: str) -> str:
    return f"/v2/serverless/{id}"
