"""The spec on Modal: an app with one function, whose containers Modal starts and ends by the requests there are.

What becomes a resource's input never depends on a price of the moment: with `hardware.gpus` Modal takes the first of
them that it has, without it the cheapest by the dated prices is declared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic.alias_generators import to_camel

from providers.base import HF_TOKEN, KEY, PREVIOUS_KEY, Ask, Declaration, Declared, Reason, Ref
from providers.fitting import fitting_gpus, is_half, misfits
from providers.modal.apps import MOST_GPUS
from providers.modal.choices import (
    DISK_GB,
    ModalOptions,
    cache_env,
    image_of,
    market_of,
    options_of,
    regions_of,
    routing_of,
)
from providers.modal.definition import PORT
from providers.modal.pricing import placed, resized
from providers.model_shape import model_shape
from serving import NAMESPACE
from serving.gpus import Gpu, UnknownGpu, gpu
from serving.offers import Offer
from serving.places import residence
from serving.rank import Candidate, chosen_order, rank, wanted_gpus
from serving.start import refused_args, start_script

_LONG_NOTE = (
    "Modal answers a request that takes longer than 150 s with a redirect to its result (303): long answers need a "
    "client that follows it, and a first request may take that long to start a container."
)
_VOLUME_NOTE = "`cache` keeps weights and compiled kernels; a workspace's first TiB of volumes is free."


class ModalAdapter:
    """Modal as a platform."""

    options = ModalOptions

    def unsupported(self, ask: Ask) -> list[Reason]:
        reasons = [*_terms(ask), *_places(ask)]
        try:
            wanted_gpus(ask.spec)
        except UnknownGpu as error:
            return [*reasons, Reason("hardware.gpus", str(error))]
        fitting = _fitting(ask)
        if not fitting:
            return [*reasons, *misfits(ask.spec, "modal")]
        reasons += _counts(ask, fitting)
        if not reasons and not self.offers(ask):
            names = ", ".join(card.name for card in fitting[:5])
            text = f"nothing tells what Modal asks for those that fit ({names}); leave the list empty"
            reasons.append(Reason("hardware.gpus", text))
        return reasons

    def offers(self, ask: Ask) -> list[Offer]:
        spec, options = ask.spec, options_of(ask)
        fitting, regions = {card.name for card in _fitting(ask)}, regions_of(spec)
        sized = [resized(o, options.cpu, options.memory_gib) for o in market_of(ask).offers if o.gpu in fitting]
        found = chosen_order(
            spec, rank(spec, model_shape(spec.model), [one for o in sized for one in placed(o, regions)])
        )
        return _dearest_first(found) if spec.hardware.gpus else [candidate.offer for candidate in found]

    def resources(self, ask: Ask, offer: Offer) -> Declared:
        return Declared(
            resources=(*_volume(ask), _server(ask, offer)),
            server="server",
            endpoint=Ref("server", "endpoint"),
            run=Ref("server", "run"),
            model=ask.spec.model.served_name,
            hardware=_hardware(ask, offer),
            notes=tuple(_notes(ask)),
            # Until a container of the new version is up, those of the old one may answer, which don't know its key.
            key_delay_s=options_of(ask).startup_timeout_s,
        )


def _declare(name: str, resource: str, **inputs: Any) -> Declaration:
    return Declaration(name, f"{NAMESPACE}:modal:{resource}", {to_camel(key): value for key, value in inputs.items()})


def _volume(ask: Ask) -> list[Declaration]:
    options = options_of(ask)
    return [_declare("cache", "Volume", environment=options.environment)] if options.volume else []


def _server(ask: Ask, offer: Offer) -> Declaration:
    spec, options, cards = ask.spec, options_of(ask), _cards(ask, offer)
    token: Mapping[str, Any] = {"hf_token": HF_TOKEN} if HF_TOKEN.key in ask.secrets else {}
    volume: Mapping[str, Any] = {"volume": Ref("cache", "name")} if options.volume else {}
    return _declare(
        "server",
        "App",
        environment=options.environment,
        gpus=[card.platform_names["modal"][0] for card in cards],
        gpu_count=spec.hardware.gpu_count,
        cpu=options.cpu,
        memory_gib=options.memory_gib,
        regions=list(regions_of(spec)),
        routing_region=routing_of(ask),
        image=image_of(spec),
        script=start_script(spec, half=is_half(cards), port=PORT, tls=False),
        env=cache_env(ask),
        min_containers=spec.scaling.min,
        max_containers=spec.scaling.max,
        scaledown_window_s=spec.scaling.idle_timeout_s,
        concurrency=options.concurrency,
        timeout_s=options.request_timeout_s,
        startup_timeout_s=options.startup_timeout_s,
        api_key=KEY,
        previous_key=PREVIOUS_KEY,
        **volume,
        **token,
    )


def _cards(ask: Ask, offer: Offer) -> tuple[Gpu, ...]:
    """The GPUs that will do, first choice first."""
    return _fitting(ask) if ask.spec.hardware.gpus else (gpu(offer.gpu),)


def _dearest_first(found: list[Candidate]) -> list[Offer]:
    """Any of the listed GPUs may be the one that is billed: the dearest is estimated, with the range of all."""
    dearest = sorted(found, key=lambda candidate: -candidate.cost)
    prices = [c.offer.rates[0].unit_price for c in found]
    known = [price for price in prices if price is not None]
    if len(set(known)) < 2:
        return [candidate.offer for candidate in dearest]
    first = dearest[0].offer
    ranged = replace(first.rates[0], lowest=min(known), highest=max(known))
    return [replace(first, rates=(ranged, *first.rates[1:])), *(candidate.offer for candidate in dearest[1:])]


def _fitting(ask: Ask) -> tuple[Gpu, ...]:
    return fitting_gpus(ask.spec, "modal")


def _terms(ask: Ask) -> Iterator[Reason]:
    spec = ask.spec
    if spec.hardware.spot:
        yield Reason("hardware.spot", "Modal has one price for a GPU; `false` works")
    if spec.placement.tier == "community":
        yield Reason("placement.tier", "Modal's containers run in data centres; `secure` or `any` works")
    if spec.scaling.idle_timeout_s < 2:
        yield Reason("scaling.idle_timeout_s", "Modal keeps a container for at least 2 s; 2 to 3600 works")
    if spec.hardware.disk_gb > DISK_GB:
        yield Reason("hardware.disk_gb", f"a container on Modal has {DISK_GB} GB; that or less works")
    for problem in refused_args(spec):
        yield Reason(problem.key.removeprefix(f"{NAMESPACE}:"), f"{problem.value}: {problem.fix}")


def _places(ask: Ask) -> Iterator[Reason]:
    placement, regions = ask.spec.placement, regions_of(ask.spec)
    if placement.regions and not regions:
        wanted = ", ".join(placement.regions)
        yield Reason("placement.regions", f"Modal has no region in {wanted}; `[eu]`, `[us]` or `[]` work")
    if placement.gdpr:
        probes = (one for offer in market_of(ask).offers[:1] for one in placed(offer, regions))
        where = next((found for one in probes if not (found := residence(one, placement.regions)).allowed), None)
        if where is not None:
            yield Reason(
                "placement.gdpr", f"{where.why_not}; `false` works here, and `vllm-anywhere compare` shows who keeps it"
            )


def _counts(ask: Ask, cards: tuple[Gpu, ...]) -> Iterator[Reason]:
    count = ask.spec.hardware.gpu_count
    for card in cards if ask.spec.hardware.gpus else ():
        most = MOST_GPUS.get(card.platform_names["modal"][0], 8)
        if count > most:
            yield Reason("hardware.gpu_count", f"a container on Modal takes at most {most} of {card.name}")


def _hardware(ask: Ask, offer: Offer) -> str:
    spec, regions = ask.spec, regions_of(ask.spec)
    first, *others = _cards(ask, offer)
    instead = f" (or {', '.join(card.name for card in others)})" if others else ""
    where = f" in {', '.join(regions)}" if regions else ""
    each = f"{offer.gpu_count}x {first.name}{instead}"
    return f"Modal app, {spec.scaling.min} to {spec.scaling.max} containers{where}: {each}"


def _notes(ask: Ask) -> Iterator[str]:
    if len(_listed(ask)) > 1:
        yield "Modal starts the first GPU of the list that it has; the dearest of them is estimated."
    yield _LONG_NOTE
    if options_of(ask).volume:
        yield _VOLUME_NOTE


def _listed(ask: Ask) -> tuple[Gpu, ...]:
    return _fitting(ask) if ask.spec.hardware.gpus else ()


ADAPTER = ModalAdapter()
