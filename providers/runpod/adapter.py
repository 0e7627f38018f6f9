"""The spec on RunPod: a pod, a queue endpoint with RunPod's worker, or a load-balancing endpoint with the plain image.

What becomes a resource's input never depends on a price or on stock of the moment, so a second `pulumi up` changes
nothing; which of the acceptable GPUs it gets is decided when it is rented.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic.alias_generators import to_camel

from providers.base import HF_TOKEN, KEY, PREVIOUS_KEY, Ask, Declaration, Declared, Reason, Ref
from providers.fitting import fitting_gpus, is_half, misfits
from providers.model_shape import model_shape
from providers.runpod.choices import (
    PORT,
    VOLUME_PATH,
    WORKER_VERSION,
    WORKER_VLLM,
    RunPodOptions,
    cache_env,
    data_centers_of,
    hourly_cap,
    image_of,
    kind_of,
    market_of,
    min_cuda,
    options_of,
    outside_eea,
    pinned,
    tiers_of,
    type_ids,
    volume_gb,
)
from providers.runpod.pricing import volume_rates
from serving import NAMESPACE
from serving.engine_rules import parse_version
from serving.gpus import Gpu, UnknownGpu
from serving.offers import Offer
from serving.rank import chosen_order, rank, wanted_gpus
from serving.spec import DeploymentSpec
from serving.start import refused_args, start_script, worker_env
from serving.vllm import serve_args

_PROXY_NOTE = "RunPod's proxy gives a request 100 s until its first byte, then answers 524: stream long answers."
_KEY_NOTE = (
    "Callers of a serverless endpoint need a RunPod key, not one of ours. Make one that may only use this endpoint, "
    f"and set it, or `up` stops: pulumi config set --secret {NAMESPACE}:own_api_key"
)
_IDLE_NOTE = (
    "Without requests RunPod lowers workers.max by itself: to 2 after three days, to 0 after seven. "
    "`pulumi refresh` shows it, `pulumi up` restores it."
)
_COLD_NOTE = "A request that starts a worker waits for it; past about 100 s RunPod's edge answers 524. Retry it."


class RunPodAdapter:
    """RunPod as a platform."""

    options = RunPodOptions

    def unsupported(self, ask: Ask) -> list[Reason]:
        reasons = [*_terms(ask), *_places(ask), *_weights(ask)]
        try:
            wanted_gpus(ask.spec)
        except UnknownGpu as error:
            return [*reasons, Reason("hardware.gpus", str(error))]
        fitting = _fitting(ask)
        if not fitting:
            return [*reasons, *misfits(ask.spec, "runpod")]
        if not reasons and not self.offers(ask):
            names = ", ".join(card.name for card in fitting[:5])
            tier = ask.spec.placement.tier
            where = "its clouds" if tier == "any" else f"its {tier} cloud"
            text = f"RunPod prices none of those that fit ({names}) for {kind_of(ask)}s in {where}"
            reasons.append(Reason("hardware.gpus", f"{text}; leave the list empty, or see `vllm-anywhere compare`"))
        return reasons

    def offers(self, ask: Ask) -> list[Offer]:
        spec = pinned(ask)
        fitting = {card.name for card in _fitting(ask)}
        tiers = tiers_of(spec)
        found = [o for o in market_of(ask).offers if o.kind == kind_of(ask) and o.gpu in fitting and o.tier in tiers]
        # What is sold out may be free again when it is rented; it only comes last.
        asked = {replace(offer, availability=""): offer for offer in found}
        ranked = chosen_order(spec, rank(spec, model_shape(spec.model), asked))
        ordered = [asked[candidate.offer] for candidate in ranked]
        ordered.sort(key=lambda offer: offer.availability == "none")
        return [self._complete(ask, offer, ordered) for offer in ordered]

    def resources(self, ask: Ask, offer: Offer) -> Declared:
        if options_of(ask).mode == "pod":
            stored = {"key-in-runpod": KEY, "previous-key-in-runpod": PREVIOUS_KEY}
            servers = [*(_declare(name, "Secret", value=key) for name, key in stored.items()), self._pod(ask)]
        else:
            servers = [self._endpoint(ask)]
        return Declared(
            resources=(*_registry(ask), *_volume(ask), *servers),
            server="server",
            endpoint=Ref("server", "endpoint"),
            run=Ref("server", "run"),
            model=ask.spec.model.served_name,
            hardware=_hardware(ask, offer),
            notes=tuple(_notes(ask, offer)),
            # Of serverless workers RunPod makes as many as are asked for.
            each=("server",) if options_of(ask).mode == "pod" else (),
            rented="offer" if options_of(ask).mode == "pod" else "",
        )

    def _complete(self, ask: Ask, offer: Offer, among: Sequence[Offer]) -> Offer:
        """The offer with the volume's line, and with the range of prices of the GPUs that will do."""
        rates = list(offer.rates)
        if ask.spec.hardware.gpus:
            prices = [rate.unit_price for one in among for rate in one.rates[:1] if rate.unit_price is not None]
            if prices and min(prices) != max(prices):
                rates[0] = replace(rates[0], lowest=min(prices), highest=max(prices))
        if size := volume_gb(ask):
            rates += volume_rates("pod" if offer.kind == "pod" else "serverless", size)
        return replace(offer, rates=tuple(rates))

    def _pod(self, ask: Ask) -> Declaration:
        spec = ask.spec
        volume = {"volumeId": Ref("weights", "volumeId"), "volumePath": VOLUME_PATH} if volume_gb(ask) else {}
        return _declare(
            "server",
            "Pod",
            gpus=type_ids(ask),
            prefer="listed" if spec.hardware.gpus else "cheapest",
            gpu_count=spec.hardware.gpu_count,
            clouds=[tier.upper() for tier in tiers_of(spec)],
            data_centers=data_centers_of(ask),
            min_cuda=min_cuda(ask),
            max_hourly_usd=hourly_cap(ask),
            image=image_of(ask),
            script=start_script(spec, half=is_half(_fitting(ask)), port=PORT, tls=False),
            env=cache_env(ask),
            disk_gb=spec.hardware.disk_gb,
            api_key=KEY,
            **_token(ask),
            key_reference=Ref("key-in-runpod", "reference"),
            previous_reference=Ref("previous-key-in-runpod", "reference"),
            **_registry_input(ask),
            **volume,
        )

    def _endpoint(self, ask: Ask) -> Declaration:
        spec, options = ask.spec, options_of(ask)
        balanced, half = options.mode == "load-balancing", is_half(_fitting(ask))
        scaler = "REQUEST_COUNT" if balanced or options.scaler == "request-count" else "QUEUE_DELAY"
        volume = {"volumeIds": [Ref("weights", "volumeId")]} if volume_gb(ask) else {}
        return _declare(
            "server",
            "Endpoint",
            kind="LOAD_BALANCER" if balanced else "QUEUE",
            gpus=type_ids(ask),
            prefer="listed" if spec.hardware.gpus else "cheapest",
            gpu_count=spec.hardware.gpu_count,
            min_cuda=min_cuda(ask),
            image=image_of(ask),
            args=_balanced_args(spec, half=half) if balanced else "",
            env={**(_BALANCED_ENV if balanced else worker_env(spec, half=half)), **cache_env(ask)},
            disk_gb=spec.hardware.disk_gb,
            data_centers=[name for group in data_centers_of(ask) for name in group],
            min_workers=spec.scaling.min,
            max_workers=spec.scaling.max,
            idle_timeout_s=spec.scaling.idle_timeout_s,
            scaler=scaler,
            scaler_value=options.scaler_value or (4 if scaler == "QUEUE_DELAY" else 30),
            execution_timeout_s=options.execution_timeout_s,
            flashboot=options.flashboot,
            caller_key=KEY,
            **_token(ask),
            **_registry_input(ask),
            **volume,
        )


_BALANCED_ENV = {"PORT": str(PORT), "PORT_HEALTH": str(PORT), "HEALTH_CHECK_PATH": "/health"}
"""Where RunPod's balancer finds the server, and the path that says whether it can take requests."""


def _declare(name: str, resource: str, **inputs: Any) -> Declaration:
    return Declaration(name, f"{NAMESPACE}:runpod:{resource}", {to_camel(key): value for key, value in inputs.items()})


def _balanced_args(spec: DeploymentSpec, *, half: bool) -> str:
    """Arguments after the image's own `vllm serve`. RunPod's edge asks callers for a RunPod key, and may or may not
    pass it on, so the server itself asks for none."""
    return shlex.join((*serve_args(spec, half=half), "--host", "0.0.0.0", "--port", str(PORT)))


def _fitting(ask: Ask) -> tuple[Gpu, ...]:
    return fitting_gpus(ask.spec, "runpod")


def _terms(ask: Ask) -> Iterator[Reason]:
    spec, options = ask.spec, options_of(ask)
    if spec.hardware.spot:
        yield Reason("hardware.spot", "RunPod's REST v2 rents nothing interruptible; `false` works")
    for problem in refused_args(spec):
        yield Reason(problem.key.removeprefix(f"{NAMESPACE}:"), f"{problem.value}: {problem.fix}")
    if options.mode == "pod":
        if spec.scaling.min == 0:
            yield Reason(
                "scaling.min",
                "0 lets a server sleep, and a pod never does: 1 works, or `runpod.mode: serverless`",
            )
        always = max(1, spec.scaling.min)
        if spec.scaling.max > always:
            yield Reason(
                "scaling.max",
                f"{spec.scaling.max} servers, and pods are not added under load: {always} works, as many as always "
                "run, or `runpod.mode: serverless`",
            )
    elif spec.placement.tier == "community":
        yield Reason("placement.tier", "serverless workers run in RunPod's own data centres; `secure` or `any` works")
    if options.mode == "serverless" and not options.image:
        if spec.engine.image:
            yield Reason(
                "engine.image",
                "a queue endpoint runs RunPod's worker image; `runpod.mode: load-balancing` runs yours, and "
                "`runpod.image` names another worker",
            )
        elif parse_version(spec.engine.version) != parse_version(WORKER_VLLM):
            yield Reason(
                "engine.version",
                f"RunPod's worker {WORKER_VERSION} holds vLLM {WORKER_VLLM}, not {spec.engine.version}: set that, or "
                "`runpod.mode: load-balancing`, or an image of your own in `runpod.image`",
            )
    if options.mode == "load-balancing" and options.scaler == "queue-delay":
        yield Reason("runpod.scaler", "a load balancer has no queue; `request-count` works")


def _places(ask: Ask) -> Iterator[Reason]:
    spec = ask.spec
    if not options_of(ask).data_centers and spec.placement.regions and not data_centers_of(ask):
        wanted = ", ".join(spec.placement.regions)
        yield Reason("placement.regions", f"RunPod has no data centre in {wanted}; `[eu]`, `[us]` or `[]` work")
    outside = outside_eea(ask)
    if spec.placement.gdpr and (outside or not data_centers_of(ask)):
        key = "runpod.data_centers" if options_of(ask).data_centers else "placement.regions"
        where = f"they allow {', '.join(outside[:3])}" if outside else "nothing pins it to a place"
        yield Reason(
            key, f"`placement.gdpr` keeps data in the EU or EEA, and {where}; `placement.regions: [eea]` works"
        )


def _weights(ask: Ask) -> Iterator[Reason]:
    options = options_of(ask)
    if options.weights == "image" and not options.image:
        yield Reason("runpod.image", "`weights: image` needs the image that holds them")
    if options.weights == "volume" and len([name for group in data_centers_of(ask) for name in group]) != 1:
        yield Reason(
            "runpod.data_centers", "a network volume is in one data centre: name that one, such as `[EU-RO-1]`"
        )


def _volume(ask: Ask) -> list[Declaration]:
    size = volume_gb(ask)
    if not size:
        return []
    (group,) = data_centers_of(ask)
    volume = _declare("volume", "NetworkVolume", size_gb=size, data_center=group[0])
    weights = _declare(
        "weights",
        "Weights",
        volume_id=Ref("volume", "id"),
        data_center=group[0],
        model=ask.spec.model.name,
        revision=ask.spec.model.revision or "main",
        **_token(ask),
    )
    return [volume, weights]


def _registry(ask: Ask) -> list[Declaration]:
    user = options_of(ask).registry_username
    return [_declare("registry", "RegistryAuth", username=user)] if user else []


def _token(ask: Ask) -> Mapping[str, Any]:
    return {"hf_token": HF_TOKEN} if HF_TOKEN.key in ask.secrets else {}


def _registry_input(ask: Ask) -> Mapping[str, Any]:
    return {"registry": Ref("registry", "id")} if options_of(ask).registry_username else {}


def _hardware(ask: Ask, offer: Offer) -> str:
    spec = ask.spec
    others = [card.name for card in _fitting(ask) if card.name != offer.gpu] if spec.hardware.gpus else []
    instead = f" (or {', '.join(others)})" if others else ""
    each = f"{offer.gpu_count}x {offer.gpu}{instead}"
    if offer.kind == "pod":
        return f"RunPod pod, {offer.tier}: {each}"
    return f"RunPod {options_of(ask).mode}, {spec.scaling.min} to {spec.scaling.max} workers: {each}"


def _notes(ask: Ask, offer: Offer) -> Iterator[str]:
    options = options_of(ask)
    yield from market_of(ask).notes
    if offer.availability in ("none", "low"):
        level = "no" if offer.availability == "none" else "little"
        yield f"RunPod has {level} stock of {offer.gpu} at the moment."
    if options.mode == "pod":
        yield _PROXY_NOTE
    else:
        if "own_api_key" not in ask.secrets:
            yield _KEY_NOTE
        yield _IDLE_NOTE
        if ask.spec.scaling.min == 0:
            yield _COLD_NOTE
    if offer.tier == "community":
        yield "A community host is somebody's own machine: it can read what runs on it."


ADAPTER = RunPodAdapter()
