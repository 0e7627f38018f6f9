"""The spec on Lambda Cloud: one on-demand instance a server, with TLS of the deployment's own. Pure.

What becomes a resource's input never depends on a live price or on stock, so a second `pulumi up` changes nothing;
which of the machines that will do it gets is decided when it is rented.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from providers.base import HF_TOKEN, KEY, PREVIOUS_KEY, Ask, Declaration, Declared, Reason, Ref
from providers.fitting import fitting_gpus, is_half, misfits
from providers.lambda_cloud.client import PLATFORM
from providers.lambda_cloud.pricing import WITHOUT_FIREWALL
from providers.machines import can_be_rented, none_left, types_for
from serving.budget import hourly_cap
from serving.gpus import UnknownGpu
from serving.offers import Offer
from serving.places import all_places, regions_on
from serving.spec import DeploymentSpec, Part, SpecError
from serving.start import refused_args, start_script
from serving.tls import server_name

PORT = 8000


class LambdaOptions(Part):
    """What only Lambda has."""

    ssh_key: str = Field(
        default="",
        max_length=64,
        description="Name of an SSH key of the account to put on instances. Empty: one whose private half nobody has.",
    )


class LambdaAdapter:
    """Lambda Cloud, on-demand instances."""

    options = LambdaOptions

    def unsupported(self, ask: Ask) -> list[Reason]:
        spec = ask.spec
        reasons = list(_terms(spec))
        try:
            types = types_for(spec, PLATFORM)
        except UnknownGpu as error:
            return [*reasons, Reason("hardware.gpus", str(error))]
        except SpecError as error:
            return [*reasons, Reason("model.name", str(error))]
        if not types:
            return [*reasons, *misfits(spec, PLATFORM)]
        if not reasons and ask.running is None and not self.offers(ask):
            reasons.append(none_left(ask, types))
        return reasons

    def offers(self, ask: Ask) -> list[Offer]:
        if ask.running is not None:
            return [ask.running]
        return can_be_rented(ask, types_for(ask.spec, PLATFORM), regions_for(ask.spec))

    def resources(self, ask: Ask, offer: Offer) -> Declared:
        spec = ask.spec
        script = start_script(spec, half=is_half(fitting_gpus(spec, PLATFORM)), port=PORT, tls=True)
        cap = hourly_cap(spec, spec.scaling.min)
        name = server_name(spec.model.served_name)
        certificate = Declaration("tls", "vllm-anywhere:index:Certificate", {"name": name})
        server = Declaration(
            "server",
            "vllm-anywhere:lambda:Instance",
            {
                "types": types_for(spec, PLATFORM),
                "regions": regions_for(spec),
                **({"maxHourlyUsd": str(cap)} if cap is not None else {}),
                **({"sshKey": _options(ask).ssh_key} if _options(ask).ssh_key else {}),
                "image": spec.engine.image or f"vllm/vllm-openai:v{spec.engine.version}",
                "script": script,
                "apiKey": KEY,
                "previousKey": PREVIOUS_KEY,
                **({"hfToken": HF_TOKEN} if HF_TOKEN.key in ask.secrets else {}),
                "caPem": Ref("tls", "caPem"),
                "caKeyPem": Ref("tls", "caKeyPem"),
                "serverName": name,
                "timeoutS": spec.ready.timeout_s,
            },
        )
        return Declared(
            resources=(certificate, server),
            server="server",
            endpoint=Ref("server", "endpoint"),
            run=Ref("server", "run"),
            model=spec.model.served_name,
            hardware=f"{offer.gpu_count}x {offer.gpu} ({offer.sku})",
            notes=(*ask.market.notes, *_running_notes(ask), *_notes(spec)),
            ca=Ref("tls", "caPem"),
            each=("server",),
            rented="offer",
        )


def regions_for(spec: DeploymentSpec) -> list[str]:
    """The regions that will do, best first: all of them where nothing is wanted."""
    wanted = spec.placement.regions or (("eea",) if spec.placement.gdpr else ())
    found = regions_on(PLATFORM, wanted) if wanted else [place.region for place in all_places(PLATFORM)]
    return [region for region in found if region not in WITHOUT_FIREWALL]


def _running_notes(ask: Ask) -> Iterator[str]:
    if ask.running is not None:
        why = none_left(ask, types_for(ask.spec, PLATFORM)).text
        yield f"What is rented stays, and nothing could replace it now: {why}."


def _notes(spec: DeploymentSpec) -> Iterator[str]:
    yield "TLS by a CA of this deployment's own: clients need its certificate (the output `ca_pem`)."
    yield (
        "A change of model, flags or image rents another instance, and the old one serves until that has answered. "
        "Lambda has no stopped instances: whatever exists is billed."
    )
    if is_half(fitting_gpus(spec, PLATFORM)):
        yield "A GPU without bfloat16 is among those that will do, so the model runs in half precision."
    if spec.scaling.max > spec.scaling.min:
        runs = "One server runs" if spec.scaling.min == 1 else f"{spec.scaling.min} servers run"
        yield f"{runs}; scaling.max ({spec.scaling.max}) has no effect on instances."


def _options(ask: Ask) -> LambdaOptions:
    return ask.options


def _terms(spec: DeploymentSpec) -> Iterator[Reason]:
    """What no machine could change."""
    if spec.scaling.min < 1:
        yield Reason("scaling.min", "Lambda's instances don't sleep: 1 or more works")
    if spec.hardware.spot:
        yield Reason("hardware.spot", "Lambda has no interruptible instances; `false` works")
    if not regions_for(spec):
        yield Reason("placement.regions", "Lambda has no machines there that a port can be opened on")
    for problem in refused_args(spec):
        yield Reason("engine.extra_args", f"{problem.value}: {problem.fix}")


ADAPTER = LambdaAdapter()
