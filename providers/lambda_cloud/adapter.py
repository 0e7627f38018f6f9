"""The spec on Lambda Cloud: one on-demand instance a server, with TLS of the deployment's own. Pure.

What becomes a resource's input never depends on a live price or on stock, so a second `pulumi up` changes nothing;
which of the machines that will do it gets is decided when it is rented.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_DOWN, Decimal

from pydantic import Field

from providers import market
from providers.base import HF_TOKEN, KEY, PREVIOUS_KEY, Ask, Declaration, Declared, Reason, Ref
from providers.fitting import fitting_gpus, is_half, misfits
from providers.lambda_cloud.client import PLATFORM
from providers.lambda_cloud.pricing import WITHOUT_FIREWALL
from providers.market import Market
from providers.model_shape import model_shape
from serving.gpus import UnknownGpu
from serving.offers import Offer
from serving.places import all_places, regions_on
from serving.rank import rank
from serving.spec import HOURS_PER_MONTH, DeploymentSpec, Part, SpecError
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
            if not types_for(spec):
                return [*reasons, *misfits(spec, PLATFORM)]
        except UnknownGpu as error:
            return [*reasons, Reason("hardware.gpus", str(error))]
        except SpecError as error:
            return [*reasons, Reason("model.name", str(error))]
        if not reasons and not self.offers(ask):
            reasons.append(_none_left(ask))
        return reasons

    def offers(self, ask: Ask) -> list[Offer]:
        order = {name: place for place, name in enumerate(types_for(ask.spec))}
        regions = {name: place for place, name in enumerate(regions_for(ask.spec))}
        taken = [one.offer for one in rank(ask.spec, model_shape(ask.spec.model), _market(ask).offers) if one.ok]
        fitting = [offer for offer in taken if offer.sku in order]
        return sorted(fitting, key=lambda offer: (order[offer.sku], regions.get(offer.region, len(regions))))

    def resources(self, ask: Ask, offer: Offer) -> Declared:
        spec = ask.spec
        script = start_script(spec, half=is_half(fitting_gpus(spec, PLATFORM)), port=PORT, tls=True)
        ceiling = _ceiling(spec)
        name = server_name(spec.model.served_name)
        certificate = Declaration("tls", "vllm-anywhere:index:Certificate", {"name": name})
        server = Declaration(
            "server",
            "vllm-anywhere:lambda:Instance",
            {
                "types": types_for(spec),
                "regions": regions_for(spec),
                **({"maxHourlyUsd": str(ceiling)} if ceiling is not None else {}),
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
            notes=(*_market(ask).notes, *_notes(ask)),
            ca=Ref("tls", "caPem"),
            each=("server",),
        )


def types_for(spec: DeploymentSpec) -> list[str]:
    """The machine types that will do: in the user's order of GPUs, else cheapest first by the dated prices.

    Raises:
        SpecError: nothing is known of the model.
        UnknownGpu: `hardware.gpus` has a name that no GPU has.
    """
    wanted = {card.name: place for place, card in enumerate(fitting_gpus(spec, PLATFORM))}
    fitting = [offer for offer in market.dated(PLATFORM, spec.hardware.gpu_count) if offer.gpu in wanted]

    def order(offer: Offer) -> tuple[int, Decimal, str]:
        usd = offer.rates[0].unit_price
        place = wanted[offer.gpu] if spec.hardware.gpus else 0
        return place, Decimal("Infinity") if usd is None else usd, offer.sku

    return list(dict.fromkeys(offer.sku for offer in sorted(fitting, key=order)))


def regions_for(spec: DeploymentSpec) -> list[str]:
    """The regions that will do, best first: all of them where nothing is wanted."""
    wanted = spec.placement.regions or (("eea",) if spec.placement.gdpr else ())
    found = regions_on(PLATFORM, wanted) if wanted else [place.region for place in all_places(PLATFORM)]
    return [region for region in found if region not in WITHOUT_FIREWALL]


def _notes(ask: Ask) -> Iterator[str]:
    yield "TLS by a CA of this deployment's own: clients need its certificate (the output `ca_pem`)."
    yield (
        "A change of model, flags or image rents another instance, and the old one serves until that has answered. "
        "Lambda has no stopped instances: whatever exists is billed."
    )
    if is_half(fitting_gpus(ask.spec, PLATFORM)):
        yield "A GPU without bfloat16 is among those that will do, so the model runs in half precision."


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


def _none_left(ask: Ask) -> Reason:
    """Why none of the machines that the model fits on can be had, in the words of the nearest one."""
    types = types_for(ask.spec)
    found = rank(ask.spec, model_shape(ask.spec.model), [one for one in _market(ask).offers if one.sku in types])
    why = "; ".join(dict.fromkeys(f"{one.offer.sku}: {', '.join(one.reasons)}" for one in found[:3]))
    return Reason("placement.regions", f"{why or 'nothing is offered'}. Other GPUs or regions may do")


def _ceiling(spec: DeploymentSpec) -> Decimal | None:
    """US dollars an hour that one server may cost at most, by the budget."""
    monthly, hourly = spec.budget.monthly_usd, spec.budget.hourly_usd
    caps = [] if monthly is None else [monthly / HOURS_PER_MONTH]
    caps += [] if hourly is None else [hourly]
    return min(caps).quantize(Decimal("0.0001"), ROUND_DOWN) / spec.scaling.min if caps else None


def _market(ask: Ask) -> Market:
    return ask.market


ADAPTER = LambdaAdapter()
