"""Vast.ai's serverless, experimental: an endpoint (how it scales) and a workergroup (what its workers are).

Workers are instances that Vast.ai rents and stops by itself. What runs on them is a template of the account, since the
image has to register with Vast.ai's router: the plain vLLM image does not. Clients go through Vast.ai's OpenAI proxy
with a key of the account; make one that may do little, and set it as `own_api_key`.

The routes of workergroups (`/autojobs/`) are those of the vendor's own client; the API's documents leave them out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from providers.base import PlatformError
from providers.lifecycle import ensure_gone, ensure_one
from providers.native import Context, Created, Failure, Found, Labelled, NativeResource, Properties

if TYPE_CHECKING:
    from providers.vastai.client import Vast

PROXY = "https://openai.vast.ai"
PROXY_VARIABLE = "VLLM_ANYWHERE_VASTAI_PROXY"


@dataclass(frozen=True)
class Job:
    """An endpoint or a workergroup as it is listed: `label` is the endpoint's name."""

    id: str
    label: str
    fields: Mapping[str, Any]


class EndpointInputs(Labelled):
    """How it scales."""

    min_load: float = Field(default=0, description="Load that is always provided for, in tokens a second.")
    cold_workers: int = Field(default=0, description="Workers that are kept, stopped, while there is no load.")
    max_workers: int = Field(default=1, description="Most workers.")
    target_util: float = Field(default=0.9, description="Share of the capacity that is used before it grows.")
    cold_mult: float = Field(default=1.0, description="Capacity of stopped workers, as a multiple of the load.")
    inactivity_timeout_s: int = Field(default=60, description="Seconds without requests before workers stop.")


class EndpointOutputs(Properties):
    """The endpoint."""

    label: str = Field(description="project/stack/resource/generation-owner.")
    name: str = Field(description="What Vast.ai calls it.")
    endpoint: str = Field(description="OpenAI base URL of Vast.ai's proxy.")


class Endpoint(NativeResource[EndpointInputs, EndpointOutputs]):
    """Lifecycle of an endpoint; deleting it deletes its workers."""

    token: ClassVar[str] = "vllm-anywhere:vastai:Endpoint"
    doc: ClassVar[str] = "A serverless endpoint on Vast.ai (experimental)."
    inputs = EndpointInputs
    outputs = EndpointOutputs

    def check(self, inputs: Mapping[str, Any]) -> list[Failure]:
        if not 0 < inputs.get("target_util", 0.9) <= 1:
            return [Failure("target_util", "more than 0, at most 1")]
        return []

    def create(self, context: Context, inputs: EndpointInputs) -> Created[EndpointOutputs]:
        jobs = Jobs(_vast(context), "endptjobs")
        name = endpoint_name(inputs.label)
        made = ensure_one(
            context,
            name,
            create=lambda: jobs.create(name, {**_scaling(inputs), "endpoint_name": name}),
            labelled=jobs.labelled,
            destroy=jobs.delete,
            same=lambda job: True,
        )
        outputs = _endpoint_outputs(inputs.label)
        try:
            jobs.update(made.id, _scaling(inputs))
        except PlatformError as error:
            return Created(made.id, outputs, f"endpoint {made.id} exists, but may scale otherwise: {error}")
        return Created(made.id, outputs)

    def read(
        self, context: Context, id: str, inputs: EndpointInputs | None, outputs: EndpointOutputs | None
    ) -> Found[EndpointInputs, EndpointOutputs] | None:
        job = Jobs(_vast(context), "endptjobs").get(id)
        if job is None:
            return None
        there = {name: job.fields[name] for name in _SCALING if job.fields.get(name) is not None}
        label = inputs.label if inputs else job.label
        known = inputs or EndpointInputs(label=label)
        return Found(known.model_copy(update=there), outputs or _endpoint_outputs(label))

    def update(
        self, context: Context, id: str, outputs: EndpointOutputs, old: EndpointInputs, new: EndpointInputs
    ) -> Created[EndpointOutputs]:
        Jobs(_vast(context), "endptjobs").update(id, _scaling(new))
        return Created(id, outputs)

    def delete(self, context: Context, id: str, outputs: EndpointOutputs) -> None:
        vast = _vast(context)
        jobs = Jobs(vast, "endptjobs")
        left: list[str] = []
        ensure_gone(
            context, id, destroy=lambda id: left.extend(jobs.delete_all(id)), exists=lambda id: jobs.get(id) is not None
        )
        # Workers that it could not delete are instances like any other, and bill.
        for worker in left:
            ensure_gone(context, worker, destroy=vast.destroy, exists=lambda id: vast.get(id) is not None)


class WorkergroupInputs(Labelled):
    """What the workers of an endpoint are."""

    endpoint_id: str = Field(description="The endpoint's id.")
    endpoint_name: str = Field(description="The endpoint's name at Vast.ai.")
    template_hash: str = Field(description="Template of the account, with an image that registers at the router.")
    search: str = Field(description="Constraints on machines, in Vast.ai's query language.")
    gpu_ram_gb: int = Field(default=24, description="GPU memory that the model takes, GB.")


class WorkergroupOutputs(Properties):
    """The workergroup."""

    label: str = Field(description="project/stack/resource/generation-owner.")
    endpoint_name: str = Field(description="The endpoint that it works for.")


class Workergroup(NativeResource[WorkergroupInputs, WorkergroupOutputs]):
    """Lifecycle of a workergroup."""

    token: ClassVar[str] = "vllm-anywhere:vastai:Workergroup"
    doc: ClassVar[str] = "The workers of a serverless endpoint on Vast.ai (experimental)."
    inputs = WorkergroupInputs
    outputs = WorkergroupOutputs
    replace_on: ClassVar[frozenset[str]] = frozenset({"endpoint_id", "endpoint_name"})

    def create(self, context: Context, inputs: WorkergroupInputs) -> Created[WorkergroupOutputs]:
        jobs = Jobs(_vast(context), "autojobs")
        name = inputs.endpoint_name
        made = ensure_one(
            context,
            name,
            create=lambda: jobs.create(name, {**_workers(inputs), "endpoint_id": int(inputs.endpoint_id)}),
            labelled=jobs.labelled,
            destroy=jobs.delete,
            same=lambda job: job.fields.get("template_hash") in (None, inputs.template_hash),
        )
        return Created(made.id, WorkergroupOutputs(label=inputs.label, endpoint_name=name))

    def read(
        self, context: Context, id: str, inputs: WorkergroupInputs | None, outputs: WorkergroupOutputs | None
    ) -> Found[WorkergroupInputs, WorkergroupOutputs] | None:
        job = Jobs(_vast(context), "autojobs").get(id)
        if job is None:
            return None
        if inputs is None:
            inputs = WorkergroupInputs(
                endpoint_id=str(job.fields.get("endpoint_id", "")),
                endpoint_name=job.label,
                template_hash=str(job.fields.get("template_hash") or ""),
                search=str(job.fields.get("search_query") or job.fields.get("search_params") or ""),
            )
        return Found(inputs, outputs or WorkergroupOutputs(label=inputs.label, endpoint_name=job.label))

    def update(
        self, context: Context, id: str, outputs: WorkergroupOutputs, old: WorkergroupInputs, new: WorkergroupInputs
    ) -> Created[WorkergroupOutputs]:
        Jobs(_vast(context), "autojobs").update(id, _workers(new))
        return Created(id, outputs)

    def delete(self, context: Context, id: str, outputs: WorkergroupOutputs) -> None:
        jobs = Jobs(_vast(context), "autojobs")
        ensure_gone(context, id, destroy=jobs.delete, exists=lambda id: jobs.get(id) is not None)


_COMMON = {"client_id": "me", "autoscaler_instance": "prod"}


class Jobs:
    """One of the two collections, `endptjobs` or `autojobs`."""

    def __init__(self, vast: Vast, collection: str) -> None:
        self._vast, self._path = vast, f"/api/v0/{collection}/"

    def create(self, name: str, fields: Mapping[str, Any]) -> Job:
        """Make one; never repeated here.

        Raises:
            CreateUncertain: the answer is lost.
        """
        answer = self._vast.make(self._path, {**_COMMON, **fields}, name)
        return Job(answer, name, dict(fields))

    def all(self) -> list[Job]:
        """Every one of the account; only a well-formed list is returned."""
        rows = self._vast.send("GET", self._path).get("results")
        if not isinstance(rows, list) or not all(isinstance(row, dict) and "id" in row for row in rows):
            raise PlatformError("Vast.ai's list of serverless endpoints is not one; nothing was changed")
        return [Job(str(row["id"]), str(row.get("endpoint_name") or ""), row) for row in rows]

    def labelled(self, name: str) -> list[Job]:
        return [job for job in self.all() if job.label == name]

    def get(self, id: str) -> Job | None:
        return next((job for job in self.all() if job.id == id), None)

    def update(self, id: str, fields: Mapping[str, Any]) -> None:
        page = self._vast.send("PUT", f"{self._path}{id}/", {**_COMMON, **fields})
        if page.get("success") is False:
            raise PlatformError(f"Vast.ai refused to change {id}: {page.get('msg') or page.get('error')}")

    def delete(self, id: str) -> None:
        """Delete one; one that is gone is no error."""
        self.delete_all(id)

    def delete_all(self, id: str) -> list[str]:
        """Delete one; the ids of workers that Vast.ai could not delete with it."""
        page = self._vast.send("DELETE", f"{self._path}{id}/", missing=True)
        return [str(worker) for worker in (page or {}).get("failed_workers") or ()]


def endpoint_name(label: str) -> str:
    """The label as a name that fits into a URL."""
    return re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-")


_SCALING = ("min_load", "cold_workers", "max_workers", "target_util", "cold_mult")


def _scaling(inputs: EndpointInputs) -> dict[str, Any]:
    # Every field each time: what the vendor's client leaves out it sends as null.
    fields = {name: getattr(inputs, name) for name in _SCALING}
    return {**fields, "inactivity_timeout": inputs.inactivity_timeout_s}


def _workers(inputs: WorkergroupInputs) -> dict[str, Any]:
    return {
        "endpoint_name": inputs.endpoint_name,
        "template_hash": inputs.template_hash,
        "search_params": f"{inputs.search} rentable=True rented=False",
        "gpu_ram": inputs.gpu_ram_gb,
    }


def _endpoint_outputs(label: str) -> EndpointOutputs:
    name = endpoint_name(label)
    proxy = os.environ.get(PROXY_VARIABLE) or PROXY
    return EndpointOutputs(label=label, name=name, endpoint=f"{proxy}/{name}/v1")


def _vast(context: Context) -> Vast:
    from providers.vastai.client import connect

    return connect(context.clock, context.wait)


SERVERLESS = (Endpoint(), Workergroup())
