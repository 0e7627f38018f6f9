"""The spec on Google Cloud: one VM with a GPU, or a group of one that heals itself. Pure.

What becomes a resource's input depends on the spec, the options and the dated tables, and on prices only where the user
leaves the choice open: then the cheapest machine that fits is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from decimal import Decimal

from providers.base import HF_TOKEN, Ask, Declared, Reason, Ref
from providers.gcp.lifetime import lifetime_notes
from providers.gcp.machines import accelerator, region_of, zones_for, zones_with
from providers.gcp.options import DRIVER, GcpOptions
from providers.gcp.pricing import GcpMarket
from providers.gcp.quotas import QuotaFinding, quota_findings
from providers.gcp.stack import (
    FOLLOW,
    KEY_DELAY_S,
    Choice,
    declarations,
    each,
    endpoint,
    own_tls,
    run,
    searches_zones,
)
from serving import USER_PRICES
from serving.capabilities import BF16_SINCE
from serving.cost import assumptions_for
from serving.gpus import UnknownGpu, gpu
from serving.models import Model
from serving.offers import Offer, Rate
from serving.preflight import IMAGE_DISK_GB, Host, preflight
from serving.rank import chosen_order, rank, wanted_gpus
from serving.snapshot import machines
from serving.spec import DeploymentSpec
from serving.start import refused_args

PLATFORM = "gcp"
SYSTEM_DISK_GB = 10
"""Ubuntu with the driver, Docker and the container toolkit; an estimate."""
PULL_DISK_GB = 12
"""The compressed image, which lies beside the unpacked one while it is pulled (vllm-project/vllm#27154)."""
T4_END = "Google ends T4 support on 2027-08-01"
"""What several public Terraform modules say as of September 2026, and no page of Google's that we know."""
COMMITTED = frozenset({"GPU", "machine", "vCPU", "memory"})
"""Meters that a committed-use contract makes cheaper."""


class GcpAdapter:
    """Google Compute Engine."""

    options = GcpOptions

    def unsupported(self, ask: Ask) -> list[Reason]:
        reasons = list(_terms(ask))
        try:
            wanted = wanted_gpus(ask.spec)
        except UnknownGpu as error:
            return [*reasons, Reason("hardware.gpus", str(error))]
        model = _market(ask).model
        if model is None or reasons:
            return reasons
        need = _disk_too_small(ask.spec, model)
        if offers := self.offers(ask):
            found = list(_no_quota(ask, offers[0]))
        else:
            found = list(_why_none(ask, model, set(wanted)))
        if need is None:
            return found
        # What a VM's disk holds is more than what a container's does, of which the model's fit speaks.
        return [need, *(reason for reason in found if reason.key != need.key)]

    def offers(self, ask: Ask) -> list[Offer]:
        market, spec, options = _market(ask), ask.spec, _options(ask)
        if market.model is None:
            return []
        found = [
            offer
            for offer in market.offers
            if offer.kind == "vm"
            and offer.spot == spec.hardware.spot
            and options.machine_type in (None, offer.sku)
            and _zones(ask, offer.gpu, offer.region)
            and _runs(spec, market.model, offer)
        ]
        ordered = chosen_order(spec, rank(spec, market.model, found))
        return [_committed(candidate.offer, options.committed_use_discount) for candidate in ordered]

    def resources(self, ask: Ask, offer: Offer) -> Declared:
        spec, options = ask.spec, _options(ask)
        card = gpu(offer.gpu)
        choice = Choice(offer.sku, offer.region, _zones(ask, offer.gpu, offer.region), card)
        half = card.compute_capability < BF16_SINCE
        return Declared(
            resources=declarations(spec, options, choice, half=half, hf_token=HF_TOKEN.key in ask.secrets),
            server="server",
            endpoint=endpoint(options),
            run=run(options),
            model=spec.model.served_name,
            hardware=_hardware(spec, choice),
            notes=(*_market(ask).notes, *_notes(ask, offer, choice, half)),
            ca=Ref("tls", "caPem") if own_tls(options) else None,
            each=each(spec, options, choice),
            follow=FOLLOW if own_tls(options) else {},
            key_delay_s=KEY_DELAY_S,
        )


def _terms(ask: Ask) -> Iterator[Reason]:
    """What no machine could change."""
    spec, options = ask.spec, _options(ask)
    if spec.scaling.min == 0:
        yield Reason("scaling.min", "0 lets a server sleep, and a VM can't: 1 works, or more")
    if spec.scaling.min > 1:
        yield from _one_alone(spec, options)
    regions = sorted({region_of(zone) for zone in options.zones})
    if len(regions) > 1:
        text = f"the static address is of one region, and these zones are of {', '.join(regions)}: keep those of one"
        yield Reason("gcp.zones", text)
    if options.committed_use_discount and spec.hardware.spot:
        yield Reason("gcp.committed_use_discount", "no contract makes spot capacity cheaper; leave it out")
    for problem in refused_args(spec):
        yield Reason("engine.extra_args", f"{problem.value}: {problem.fix}")


def _one_alone(spec: DeploymentSpec, options: GcpOptions) -> Iterator[Reason]:
    """What is of one VM only."""
    count = spec.scaling.min
    if options.ha == "mig":
        yield Reason("gcp.ha", f"a group is of one VM, and {count} were asked for: `none` makes them, each by itself")
    if options.hostname:
        yield Reason("gcp.hostname", f"one name can't lead to {count} VMs: without it each has an address of its own")


def _no_quota(ask: Ask, offer: Offer) -> Iterator[Reason]:
    """What Google would refuse, as far as the project's quotas are known."""
    key = "gcp.zones" if _options(ask).zones else "placement.regions"
    for found in _quota_findings(ask, offer):
        if found.fatal:
            yield Reason(key, found.text)


def _quota_findings(ask: Ask, offer: Offer) -> tuple[QuotaFinding, ...]:
    if _options(ask).project not in (None, _market(ask).project):
        # Those of another project say nothing of this one.
        return ()
    hardware = ask.spec.hardware
    count = hardware.gpu_count * max(1, ask.spec.scaling.min)
    return quota_findings(_market(ask).quotas, gpu(offer.gpu), offer.region, count, hardware.spot)


def _disk_too_small(spec: DeploymentSpec, model: Model) -> Reason | None:
    weights = assumptions_for(model).weights_gb
    need = int(IMAGE_DISK_GB + PULL_DISK_GB + SYSTEM_DISK_GB + weights) + 1
    if spec.hardware.disk_gb >= need:
        return None
    text = (
        f"{need} GB or more: the boot disk holds the system ({SYSTEM_DISK_GB}), the image twice while it is pulled "
        f"({IMAGE_DISK_GB} + {PULL_DISK_GB}) and the weights ({weights})"
    )
    return Reason("hardware.disk_gb", text)


def _why_none(ask: Ask, model: Model, wanted: set[str]) -> Iterator[Reason]:
    """The nearest cause for that nothing on offer will do."""
    spec, options, offers = ask.spec, _options(ask), _market(ask).offers
    named = [offer for offer in offers if not wanted or offer.gpu in wanted]
    if not named:
        yield _not_sold(spec, wanted)
        return
    refusals = {
        str(found): Reason(found.key, f"{found.wrong}. {found.works}".strip())
        for name in sorted({offer.gpu for offer in named})
        for found in preflight(spec, model, gpu(name), Host(PLATFORM, driver=DRIVER)).refusals
    }
    fitting = [offer for offer in named if _runs(spec, model, offer)]
    if not fitting:
        yield from refusals.values()
        return
    if options.machine_type and not any(offer.sku == options.machine_type for offer in fitting):
        yield _not_priced(options.machine_type, fitting)
        return
    gpus = sorted({offer.gpu for offer in fitting})
    if options.zones:
        where = {name: _near(options.zones, _live_zones(ask, name) or zones_with(name)) for name in gpus}
        have = "; ".join(f"{name}: {', '.join(zones)}" for name, zones in where.items() if zones)
        yield Reason(
            "gcp.zones", f"none of {', '.join(options.zones)} is known to have it in a region that fits. {have}"
        )
        return
    regions = sorted({region_of(zone) for name in gpus for zone in zones_with(name)})
    text = f"no price of {' or '.join(gpus)} is known where you want it. "
    have = f"These regions have it: {', '.join(regions)}" if regions else f"A file in {USER_PRICES} may add it"
    yield Reason("placement.regions", text + have)


def _near(asked: Iterable[str], zones: Iterable[str]) -> list[str]:
    """The zones of the regions that were asked for; all of them if that is none."""
    regions = {region_of(zone) for zone in asked}
    return sorted(zone for zone in zones if region_of(zone) in regions) or sorted(zones)


def _not_sold(spec: DeploymentSpec, wanted: set[str]) -> Reason:
    """Why no machine has the GPUs that are wanted: another number of them may be sold, or other GPUs."""
    count = spec.hardware.gpu_count
    counts = sorted({m.gpu_count for m in machines() if m.platform == PLATFORM and (m.gpu in wanted or not wanted)})
    if counts:
        text = f"Google has no machine with {count} of them; {', '.join(map(str, counts))} work"
        return Reason("hardware.gpu_count", text)
    sold = ", ".join(sorted({m.gpu for m in machines() if m.platform == PLATFORM and m.gpu_count == count}))
    return Reason("hardware.gpus", f"Google has none of them; with {count} in a machine it has {sold}")


def _not_priced(machine: str, fitting: Iterable[Offer]) -> Reason:
    """Why a machine type isn't among the offers: it can't carry the GPU, or nothing is known of its price."""
    offers = list(fitting)
    carries = {offer.sku.partition("-")[0] for offer in offers}
    why = (
        "is not among the machine types with known prices"
        if machine.partition("-")[0] in carries
        else "has no such GPU"
    )
    known = ", ".join(sorted({f"{offer.sku} ({offer.gpu})" for offer in offers}))
    return Reason("gcp.machine_type", f"{machine} {why}; what works: {known}")


def _zones(ask: Ask, gpu: str, region: str) -> tuple[str, ...]:
    return zones_for(gpu, region, _options(ask).zones, _live_zones(ask, gpu))


def _live_zones(ask: Ask, name: str) -> frozenset[str]:
    """The zones that have a GPU by Google's own word; empty where it hasn't said."""
    names = gpu(name).platform_names.get(PLATFORM, ())
    return frozenset(zone for called in names for zone in _market(ask).zones.get(called, ()))


def _runs(spec: DeploymentSpec, model: Model, offer: Offer) -> bool:
    try:
        card = gpu(offer.gpu)
    except UnknownGpu:
        return False
    return preflight(spec, model, card, Host(PLATFORM, driver=DRIVER)).ok


def _committed(offer: Offer, discount: Decimal) -> Offer:
    """The offer at a contract's price, beside which Google gives no discount for sustained use."""
    if not discount:
        return offer

    def cheaper(rate: Rate) -> Rate:
        return replace(rate, discount=discount, sustained_use=False) if rate.meter in COMMITTED else rate

    return replace(offer, rates=tuple(map(cheaper, offer.rates)))


def _hardware(spec: DeploymentSpec, choice: Choice) -> str:
    spot = ", spot" if spec.hardware.spot else ""
    return f"{spec.hardware.gpu_count}x {choice.gpu.name} in {choice.machine}, {choice.region}{spot}"


def _notes(ask: Ask, offer: Offer, choice: Choice, half: bool) -> Iterable[str]:
    spec, options = ask.spec, _options(ask)
    if passed := [zone for zone in options.zones if zone not in choice.zones]:
        yield f"Left out of vllm-anywhere:gcp.zones: {', '.join(passed)}, not known to have {choice.gpu.name}."
    yield from _zone_notes(spec, options, choice)
    yield from lifetime_notes(spec, options)
    yield from (found.text for found in _quota_findings(ask, offer))
    if half:
        yield "This GPU has no bfloat16, so the model runs in half precision (--dtype half)."
    if choice.gpu.name == "T4":
        yield (
            "The T4 is of 2018 and the oldest GPU that vLLM's images still run on. Unconfirmed: several public "
            f'Terraform modules say "{T4_END}"; we found no page of Google\'s that does. '
            "`hardware.gpus: [L4]` costs more and lasts longer."
        )
    if accelerator(choice.gpu, choice.machine) == "":
        yield f"{choice.machine} comes with its GPU: its price holds both."
    if spec.hardware.spot:
        yield from _spot_notes(options)
    if options.ha == "none":
        without = "the others serve" if spec.scaling.min > 1 else "no service"
        yield (
            "A change of model, flags or image deletes the VM and makes it anew: "
            f"{without} for as long as that takes, some 10 minutes (an estimate)."
        )
    yield from _network_notes(options)
    count = max(1, spec.scaling.min)
    if spec.scaling.max > count:
        runs = "One server runs" if count == 1 else f"{count} servers run"
        yield f"{runs}; scaling.max ({spec.scaling.max}) has no effect on VMs."


def _zone_notes(spec: DeploymentSpec, options: GcpOptions, choice: Choice) -> Iterator[str]:
    listed = ", ".join(choice.zones)
    if options.ha == "mig":
        yield f"Google chooses among {listed}, now and whenever the VM is lost."
    elif searches_zones(spec, options, choice):
        yield f"The first of {listed} with capacity is taken: `up` reserves one such machine there, for some seconds."
    elif len(choice.zones) > 1:
        yield f"In {choice.zones[0]}; when that is sold out, another order of vllm-anywhere:gcp.zones may do."


def _spot_notes(options: GcpOptions) -> Iterator[str]:
    if options.ha == "mig":
        yield "Spot: Google may take the VM with 30 s notice; the group makes another when there is capacity."
    else:
        yield (
            "Spot: Google may stop the VM with 30 s notice; it stays stopped until `pulumi up --refresh`; "
            "`vllm-anywhere:gcp.ha: mig` makes another by itself."
        )


def _network_notes(options: GcpOptions) -> Iterator[str]:
    if options.plain_http:
        yield "gcp.plain_http: no TLS. The key, prompts and answers can be read and changed by everybody on the way."
    elif options.hostname:
        yield (
            f"{options.hostname} has to point to the static address before a certificate can come; "
            "ports 80 and 443 are open."
        )
    else:
        yield "TLS by a CA of this deployment's own: clients need its certificate (the output `ca_pem`)."
    if "0.0.0.0/0" in options.allow:
        yield (
            "Anybody may try the endpoint, and only the key keeps them out; "
            "`vllm-anywhere:gcp.allow` takes address ranges."
        )


def _options(ask: Ask) -> GcpOptions:
    return ask.options


def _market(ask: Ask) -> GcpMarket:
    return ask.market


ADAPTER = GcpAdapter()
