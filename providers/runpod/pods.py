"""`vllm-anywhere:runpod:Pod`: one rented GPU machine that runs the plain vLLM image.

The order of events is here; what they are decided by is in `pod_terms`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_UP, Decimal
from typing import Any, ClassVar

from pydantic import Field, SecretStr

from providers.base import AuthError, NoCapacity, PlatformError
from providers.lifecycle import ensure_gone, ensure_one
from providers.native import Context, Created, Failure, Found, NativeResource, Properties
from providers.runpod import answers
from providers.runpod.answers import GpuType
from providers.runpod.client import Forbidden, Refused, RunPod, connect
from providers.runpod.pod_terms import (
    ENDED,
    KEY_INPUTS,
    PORT,
    PRECISION,
    Candidate,
    Listed,
    PodInputs,
    amount,
    candidates,
    create_body,
    inputs_of,
    is_same,
    keys_text,
    met_by,
    objection,
    update_body,
)
from serving.guard import API_KEY, PREVIOUS_KEY

_SETTLING_PAUSES_S = (0.0, 1.0, 2.0, 4.0, 8.0)


class PodOutputs(Properties):
    """What was rented."""

    label: str = Field(description="project/stack/resource/generation-owner, which is the pod's name.")
    gpu: str = Field(description="RunPod GPU type id that it got.")
    cloud: str = Field(description="SECURE or COMMUNITY.")
    data_center: str = Field(description="Where it is, empty while RunPod does not say.")
    cuda: str = Field(description="CUDA release of the host's driver, empty while unknown.")
    status: str = Field(description="RunPod's status of the pod.")
    hourly_usd: str = Field(description="What RunPod bills, in US dollars an hour.")
    offer: dict[str, Any] = Field(default={}, description="What was rented, with the rate that is billed.")
    endpoint: str = Field(description="OpenAI base URL, through RunPod's proxy: 100 seconds to the first byte.")
    run: str = Field(description="Changes whenever the container is started anew.")
    keys: SecretStr = Field(default=SecretStr(""), description="What its environment has for keys.")


class PodResource(NativeResource[PodInputs, PodOutputs]):
    """Lifecycle of a pod."""

    token: ClassVar[str] = "vllm-anywhere:runpod:Pod"
    doc: ClassVar[str] = "A RunPod pod that serves one model with vLLM."
    inputs = PodInputs
    outputs = PodOutputs
    replace_on: ClassVar[frozenset[str]] = frozenset(
        {"gpus", "gpu_count", "clouds", "data_centers", "min_cuda", "volume_id", *KEY_INPUTS}
    )

    def check(self, inputs: Mapping[str, Any]) -> list[Failure]:
        cap = inputs.get("max_hourly_usd")
        if isinstance(cap, str) and cap and (amount(cap) is None):
            return [Failure("max_hourly_usd", "an amount of US dollars, such as `0.50`")]
        return []

    def satisfied(self, changed: frozenset[str], new: Mapping[str, Any], outputs: Mapping[str, Any]) -> frozenset[str]:
        return changed & met_by(outputs, new)

    def settled(self, changed: frozenset[str]) -> frozenset[str]:
        return frozenset({"gpu", "cloud", "data_center", "offer"})

    def create(self, context: Context, inputs: PodInputs) -> Created[PodOutputs]:
        return self.create_in(connect(context.wait), context, inputs)

    def create_in(self, cloud: RunPod, context: Context, inputs: PodInputs) -> Created[PodOutputs]:
        """`create`, in a given account."""
        listed = _listed(cloud, context, inputs)
        options = candidates(inputs, listed)
        if not options:
            raise NoCapacity(_none_listed(inputs))
        made = ensure_one(
            context,
            inputs.label,
            create=lambda: _first_free(cloud, context, inputs, options),
            labelled=lambda label: labelled(cloud, label),
            destroy=lambda id: cloud.delete(_path(id)),
            same=lambda pod: is_same(pod, inputs),
        )
        try:
            made = _settled(cloud, context, made)
            problem = objection(made, inputs, _listed_for(made, options))
            if problem:
                self.delete_in(cloud, context, made.id)
        except PlatformError as error:
            # It exists: whatever goes wrong from here on, its id has to reach the state.
            problem = f"{made.id} was created and is kept: {error}{_bills(made)}. `pulumi destroy` gives it back"
            return Created(made.id, _outputs(cloud, made, made.created_at), problem)
        if problem:
            raise PlatformError(f"{problem}. The pod {made.id} was deleted again and bills nothing more")
        outputs = _outputs(cloud, made, made.created_at)
        if made.status == "ERROR":
            why = f"{made.id} can't start its container{_bills(made)}; `vllm-anywhere logs` shows what it said"
            return Created(made.id, outputs, why)
        context.progress(f"{made.id} is {made.status.lower()} on {outputs.gpu}, ${outputs.hourly_usd} an hour")
        return Created(made.id, outputs)

    def read(
        self, context: Context, id: str, inputs: PodInputs | None, outputs: PodOutputs | None
    ) -> Found[PodInputs, PodOutputs] | None:
        return self.read_in(connect(context.wait), id, inputs, outputs)

    def read_in(
        self, cloud: RunPod, id: str, inputs: PodInputs | None, outputs: PodOutputs | None
    ) -> Found[PodInputs, PodOutputs] | None:
        """`read`, in a given account."""
        pod = get(cloud, id)
        if pod is None:
            return None
        run = outputs.run if outputs else pod.started_at or pod.created_at
        return Found(inputs_of(pod, inputs), _outputs(cloud, pod, run, outputs))

    def update(
        self, context: Context, id: str, outputs: PodOutputs, old: PodInputs, new: PodInputs
    ) -> Created[PodOutputs]:
        return self.update_in(connect(context.wait), context, id, outputs, old, new)

    def update_in(
        self, cloud: RunPod, context: Context, id: str, outputs: PodOutputs, old: PodInputs, new: PodInputs
    ) -> Created[PodOutputs]:
        """`update`, in a given account."""
        pod = get(cloud, id)
        if pod is None:
            raise PlatformError(
                f"the pod {id} is gone, and nothing is billed for it; `pulumi refresh`, then `pulumi up` rents another"
            )
        if problem := objection(pod, new, None):
            raise PlatformError(f"{problem}. The pod {id} goes on as before{_bills(pod)}")
        body = update_body(pod, new)
        if body:
            context.progress(f"changing {', '.join(sorted(body))}; the container restarts")
            pod = cloud.patch(_path(id), body, answers.Pod)
        started = pod.status in ENDED
        if started:
            context.progress("starting the stopped pod")
            try:
                cloud.act(_path(id), "start")
            except (NoCapacity, Refused) as error:
                raise PlatformError(
                    f"the stopped pod {id} can't be started again: {error}. It has no disk left, and nothing is billed "
                    f"for it. `pulumi up` tries again, `pulumi up --replace '{context.urn}'` rents another"
                ) from error
            pod = get(cloud, id) or pod
        run = context.now().isoformat(timespec="seconds") if body or started else outputs.run
        return Created(id, _outputs(cloud, pod, run, outputs))

    def delete(self, context: Context, id: str, outputs: PodOutputs) -> None:
        self.delete_in(connect(context.wait), context, id)

    def delete_in(self, cloud: RunPod, context: Context, id: str) -> None:
        """`delete`, in a given account."""

        def destroy(id: str) -> None:
            context.progress(f"deleting {id}")
            cloud.delete(_path(id))

        def exists(id: str) -> bool:
            pod = get(cloud, id)
            if pod is not None:
                context.progress(f"{id} is still {pod.status.lower()}{_bills(pod)}")
            return pod is not None

        ensure_gone(context, id, destroy=destroy, exists=exists)


def _first_free(cloud: RunPod, context: Context, inputs: PodInputs, options: Sequence[Candidate]) -> answers.Pod:
    """Rent the first candidate that RunPod has.

    Raises:
        NoCapacity: when it has none of them; nothing was created.
    """
    refusals: list[str] = []
    forbidden: AuthError | None = None
    for chosen in options:
        price = f", listed at ${chosen.listed.quantize(PRECISION, ROUND_UP)} an hour" if chosen.listed else ""
        context.progress(f"asking for {chosen}{price}")
        try:
            return cloud.create("/v2/pods", create_body(inputs, chosen), answers.Pod, inputs.label)
        except NoCapacity:
            refusals.append(f"{chosen}: none free")
        except Forbidden as error:
            forbidden = error
            refusals.append(f"{chosen}: not for this account")
    if forbidden is not None and all("not for" in refusal for refusal in refusals):
        raise forbidden
    raise NoCapacity(
        "RunPod has none of these free: " + "; ".join(refusals) + ". Nothing was created, nothing is billed. "
        "`pulumi up` asks again; more names in `vllm-anywhere:hardware.gpus`, more places in "
        "`vllm-anywhere:placement.regions`, or `vllm-anywhere:placement.tier: any` widen the choice"
    )


def _listed(cloud: RunPod, context: Context, inputs: PodInputs) -> Listed | None:
    """What RunPod lists now; None when it does not say and there is a cap to go by instead."""
    try:
        rows = cloud.gpu_types()
    except AuthError:
        raise
    except PlatformError as error:
        if not inputs.max_hourly_usd:
            raise PlatformError(
                f"the price can't be checked before renting: {error}. Nothing was created. `pulumi up` tries again; "
                "with a cap in `vllm-anywhere:runpod.max_hourly_usd` it would go on without the list"
            ) from error
        context.progress(f"going by the cap of ${inputs.max_hourly_usd} an hour alone: {error}")
        return None
    return dict(_prices(rows, inputs))


def _prices(rows: Sequence[GpuType], inputs: PodInputs) -> Iterator[tuple[tuple[str, str], Decimal]]:
    from providers.runpod.pricing import dated_rate
    from serving.spec import HOURS_PER_MONTH

    # What isn't known can't be added; the tolerance then stands for it.
    disk = (dated_rate("pod", "disk").unit_price or Decimal(0)) * inputs.disk_gb / HOURS_PER_MONTH
    for row in rows:
        if row.id in inputs.gpus:
            for cloud, offered, each in (
                ("SECURE", row.secure, row.price.secure),
                ("COMMUNITY", row.community, row.price.community),
            ):
                if cloud in inputs.clouds and offered and each:
                    yield (row.id, cloud), each * inputs.gpu_count + disk


def _listed_for(pod: answers.Pod, options: Sequence[Candidate]) -> Decimal | None:
    got = (pod.gpu.id if pod.gpu else "", pod.cloud)
    return next((option.listed for option in options if (option.gpu, option.cloud) == got), None)


def _none_listed(inputs: PodInputs) -> str:
    clouds = " or ".join(cloud.lower() for cloud in inputs.clouds)
    cap = f" for at most ${inputs.max_hourly_usd} an hour" if inputs.max_hourly_usd else ""
    return (
        f"RunPod lists none of {', '.join(inputs.gpus)} in its {clouds} cloud{cap}. Nothing was created, nothing is "
        "billed. Name others in `vllm-anywhere:hardware.gpus`, or raise `vllm-anywhere:runpod.max_hourly_usd`"
    )


def _settled(cloud: RunPod, context: Context, pod: answers.Pod) -> answers.Pod:
    """The pod once RunPod says what it costs and where it is, or as it is after a while."""
    for pause in _SETTLING_PAUSES_S:
        if (pod.cost and pod.data_center_id) or pod.status in ENDED:
            break
        context.wait(pause)
        try:
            found = get(cloud, pod.id)
        except PlatformError as error:
            context.progress(f"{pod.id} was created; asking what it costs failed: {error}")
        else:
            # None: what was just created may not be found yet.
            pod = found or pod
    return pod


def _outputs(cloud: RunPod, pod: answers.Pod, run: str, before: PodOutputs | None = None) -> PodOutputs:
    from providers.runpod.pricing import rented
    from serving.rented import as_output

    # A stopped pod has no price.
    offer = as_output(rented(pod)) if pod.cost and pod.gpu else before.offer if before else {}
    return PodOutputs(
        label=pod.label,
        gpu=pod.gpu.id if pod.gpu else "",
        cloud=pod.cloud,
        data_center=pod.data_center_id or "",
        cuda=pod.cuda_version or "",
        status=pod.status,
        hourly_usd=f"{pod.cost:f}",
        offer=offer,
        endpoint=cloud.urls.proxy.format(id=pod.id, port=PORT) + "/v1",
        run=run,
        keys=SecretStr(keys_text(pod.env.get(API_KEY), pod.env.get(PREVIOUS_KEY))),
    )


def get(cloud: RunPod, id: str) -> answers.Pod | None:
    """One pod; None when it is gone, which RunPod may show for a while as terminated."""
    pod = cloud.get(_path(id), answers.Pod)
    return None if pod is None or pod.status == "TERMINATED" else pod


def labelled(cloud: RunPod, label: str) -> list[answers.Pod]:
    """Every pod with a label that isn't gone.

    Raises:
        PlatformError: as `RunPod.all`.
    """
    found = cloud.labelled("/v2/pods", "pods", answers.Pod, label)
    return [pod for pod in found if pod.status != "TERMINATED"]


def _path(id: str) -> str:
    return f"/v2/pods/{id}"


def _bills(pod: answers.Pod) -> str:
    return f"; it bills ${pod.cost:f} an hour" if pod.cost else ""
