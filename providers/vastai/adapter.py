"""The spec on Vast.ai: an instance of the marketplace with TLS of the deployment's own. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from statistics import median

from providers.base import HF_TOKEN, KEY, PREVIOUS_KEY, Ask, Declaration, Declared, Reason, Ref
from providers.fitting import is_half
from providers.fitting import misfits as unfit
from providers.vastai.offers import VastOffer, as_offer
from providers.vastai.options import (
    PLATFORM,
    VastaiOptions,
    ceiling,
    countries,
    cuda,
    instances,
    traffic_for,
    usable_gpus,
    wanted_for,
)
from providers.vastai.pricing import VastMarket, evidence
from providers.vastai.search import (
    Wanted,
    best_per_machine,
    bid_on,
    disk_usd,
    hourly_usd,
    misfits,
    ranked,
    search_text,
    winning,
)
from serving.gpus import Gpu
from serving.offers import Offer, Rate
from serving.rented import together
from serving.report import dollars
from serving.spec import DeploymentSpec
from serving.start import fitting, start_script

PORT = 8000
SCRIPT_LIMIT = 3600
"""Characters of the start script; the rest of Vast.ai's 4096 is for joining what is longer than one variable."""
BEST = 5
"""Offers whose prices make the range."""


class VastaiAdapter:
    """The marketplace."""

    options = VastaiOptions

    def unsupported(self, ask: Ask) -> list[Reason]:
        spec, options, market = ask.spec, _options(ask), _market(ask)
        reasons: list[Reason] = []
        if options.mode == "serverless":
            if options.template_hash is None:
                text = "name a template of the account whose image registers at the router, such as Vast.ai's own vLLM"
                reasons.append(Reason("vastai.template_hash", text))
        elif spec.scaling.min == 0:
            reasons.append(Reason("scaling.min", "0 lets a server sleep, and an instance can't: 1 works, or more"))
        if options.bid_usd is not None and not spec.hardware.spot:
            reasons.append(Reason("vastai.bid_usd", "a bid needs `hardware.spot: true`; on demand the price is fixed"))
        if (spec.placement.regions or spec.placement.gdpr) and not countries(spec):
            reasons.append(Reason("placement.regions", "Vast.ai knows countries: `eu`, `us` or a code such as `de`"))
        if market.model is None:
            return reasons
        gpus = usable_gpus(spec)
        if not gpus:
            reasons += unfit(spec, PLATFORM)
        if gpus and not reasons and market.at is not None and options.mode == "instance" and not self.offers(ask):
            reasons.append(_none_fits(ask, gpus))
        elif not reasons and ask.running is None and market.at is not None:
            reasons += _too_few(ask, gpus)
        return reasons

    def offers(self, ask: Ask) -> list[Offer]:
        market, spec = _market(ask), ask.spec
        if ask.running is not None:
            return [_rebid(ask.running, _options(ask))]
        gpus = _gpus(ask)
        if market.at is None:
            names = {gpu.name for gpu in gpus}
            kind = "serverless" if _options(ask).mode == "serverless" else "instance"
            terms = (kind, spec.hardware.gpu_count, spec.hardware.spot)
            dated = [o for o in market.offers if o.gpu in names and (o.kind, o.gpu_count, o.spot) == terms]
            return sorted(dated, key=lambda offer: offer.rates[0].unit_price or Decimal("Infinity"))
        best, wanted = _fitting(ask, gpus)
        day = market.at.date()
        shown = [
            as_offer(found, interruptible=wanted.interruptible, source="live", as_of=day, evidence=evidence(found))
            for found in best
        ]
        priced = [_bidding(offer, _gpu_usd(ask, wanted, found)) for offer, found in zip(shown, best, strict=True)]
        count = instances(spec, _options(ask))
        prices = [offer.rates[0].unit_price or Decimal(0) for offer in priced[: max(BEST, count)]]
        ranges = [_ranged(offer, min(prices), max(prices)) for offer in priced]
        if _options(ask).mode == "serverless":
            return [_sleeping(offer, spec) for offer in ranges]
        # Each server is on a machine of its own, at that machine's price.
        return [together(ranges[:count]), *ranges[1:]] if ranges else []

    def resources(self, ask: Ask, offer: Offer) -> Declared:
        options, spec = _options(ask), ask.spec
        gpus = _gpus(ask)
        if options.mode == "serverless":
            return _serverless(ask, offer, gpus)
        wanted = wanted_for(spec, options, gpus)
        tls = {} if options.plain_http else _tls(spec.model.served_name)
        certificate = () if options.plain_http else (_certificate(spec.model.served_name),)
        traffic = traffic_for(spec, _market(ask).model)
        half = is_half(gpus)
        script = start_script(spec, half=half, port=PORT, tls=not options.plain_http)
        instance = Declaration(
            "server",
            "vllm-anywhere:vastai:Instance",
            {
                "gpus": list(wanted.gpus),
                "gpuCount": wanted.gpu_count,
                "minMemoryGib": wanted.min_memory_gib,
                "minCapability": "{}.{}".format(*wanted.min_capability),
                "cuda": "{}.{}".format(*cuda(spec)),
                "countries": list(wanted.countries),
                "tier": wanted.tier,
                "verified": wanted.verified,
                "staticIp": wanted.static_ip,
                "minReliability": str(wanted.min_reliability),
                "minDownloadMbps": wanted.min_download_mbps,
                "minDurationH": wanted.min_duration_h,
                "diskGb": wanted.disk_gb,
                "maxHourlyUsd": str(ceiling(spec, options)),
                "downloadGb": str(traffic.download_gb),
                "uploadGb": str(traffic.upload_gb),
                "excludedMachines": sorted(wanted.excluded),
                "interruptible": wanted.interruptible,
                **({"bidUsd": str(options.bid_usd)} if options.bid_usd is not None else {}),
                "fallback": options.fallback,
                "image": spec.engine.image or f"vllm/vllm-openai:v{spec.engine.version}",
                "script": fitting(script, SCRIPT_LIMIT),
                "port": PORT,
                "apiKey": KEY,
                "previousKey": PREVIOUS_KEY,
                **({"hfToken": HF_TOKEN} if HF_TOKEN.key in ask.secrets else {}),
                **tls,
                "attempts": options.attempts,
                "wasteUsd": str(options.waste_usd),
                "timeoutS": spec.ready.timeout_s,
            },
        )
        return Declared(
            resources=(*certificate, instance),
            server="server",
            endpoint=Ref("server", "endpoint"),
            run=Ref("server", "run"),
            ca=None if options.plain_http else Ref("tls", "caPem"),
            rented="offer",
            model=spec.model.served_name,
            hardware=f"{offer.gpu_count}x {offer.gpu}",
            notes=(*_market(ask).notes, *_notes(ask, offer, wanted, half)),
            each=("server",),
        )


def _serverless(ask: Ask, offer: Offer, gpus: list[Gpu]) -> Declared:
    """An endpoint and its workers; Vast.ai rents and stops them."""
    spec, options = ask.spec, _options(ask)
    wanted = wanted_for(spec, options, gpus)
    endpoint = Declaration(
        "server",
        "vllm-anywhere:vastai:Endpoint",
        {
            "maxWorkers": spec.scaling.max,
            "coldWorkers": spec.scaling.min,
            "inactivityTimeoutS": spec.scaling.idle_timeout_s,
        },
    )
    workers = Declaration(
        "workers",
        "vllm-anywhere:vastai:Workergroup",
        {
            "endpointId": Ref("server", "id"),
            "endpointName": Ref("server", "name"),
            "templateHash": options.template_hash,
            "search": search_text(wanted),
            "gpuRamGb": int(wanted.min_memory_gib),
        },
    )
    return Declared(
        resources=(endpoint, workers),
        server="server",
        endpoint=Ref("server", "endpoint"),
        run=Ref("server", "name"),
        model=spec.model.served_name,
        hardware=f"up to {spec.scaling.max}x {offer.gpu}",
        notes=(
            *_market(ask).notes,
            "Experimental: what the workers run is the template's business, model and vLLM flags among it.",
            "Callers need a Vast.ai key: make one that may do little, and set it as vllm-anywhere:own_api_key.",
            "Workers bill their GPU while they load too, and their disk while they sleep.",
        ),
    )


def _sleeping(offer: Offer, spec: DeploymentSpec) -> Offer:
    """An instance's prices as a worker's: the GPU is billed while it is awake, the disk of every worker also asleep."""
    disks = Decimal(spec.hardware.disk_gb * spec.scaling.max)

    def asleep(rate: Rate) -> Rate:
        if rate.bills == "kept":
            return replace(rate, quantity=disks, assumption=f"of {spec.scaling.max} workers, asleep or awake")
        return replace(rate, bills="awake") if rate.bills == "running" else rate

    return replace(offer, kind="serverless", rates=tuple(asleep(rate) for rate in offer.rates))


def _fitting(ask: Ask, gpus: list[Gpu]) -> tuple[list[VastOffer], Wanted]:
    """The offers that `up` would rent now, in its order, and for what: on demand where no bid wins and that will do."""
    options, market = _options(ask), _market(ask)
    wanted, traffic = wanted_for(ask.spec, options, gpus), traffic_for(ask.spec, market.model)
    fits = best_per_machine(ranked(wanted, market.asks, traffic))
    if not wanted.interruptible:
        return fits, wanted
    won = winning(wanted, options.bid_usd, fits)
    if won or not options.fallback:
        return won, wanted
    firm = replace(wanted, interruptible=False)
    return best_per_machine(ranked(firm, market.asks, traffic)), firm


def _gpu_usd(ask: Ask, wanted: Wanted, offer: VastOffer) -> Decimal:
    """US dollars an hour for the GPU as it would be billed: an interruptible one costs what is bid."""
    if not wanted.interruptible:
        return offer.dph_base
    return bid_on(wanted, _options(ask).bid_usd, offer.min_bid, offer.storage_cost)


def _rebid(running: Offer, options: VastaiOptions) -> Offer:
    """What runs, at the bid that `up` sets."""
    bids = running.spot and options.bid_usd is not None
    return _bidding(running, options.bid_usd) if bids and options.bid_usd is not None else running


def _bidding(offer: Offer, usd: Decimal) -> Offer:
    gpu, *others = offer.rates
    said = "the bid, which is what it costs; it may be outbid" if offer.spot else gpu.assumption
    return replace(offer, rates=(replace(gpu, unit_price=usd, assumption=said), *others))


def _none_fits(ask: Ask, gpus: list[Gpu]) -> Reason:
    """Why no offer of a market fits: the price if that is all, else what most of them lack."""
    market, spec = _market(ask), ask.spec
    wanted = wanted_for(spec, _options(ask), gpus)
    if not market.asks:
        return Reason("hardware.gpus", _nobody(wanted))
    if wanted.interruptible and (fits := ranked(wanted, market.asks, traffic_for(spec, market.model))):
        lowest = min(offer.min_bid or Decimal(0) for offer in fits)
        bid = _options(ask).bid_usd or "what the ceiling leaves for a bid"
        text = (
            f"{bid} wins none of the {len(fits)} offers that fit: the lowest bid that wins now is "
            f"{dollars(lowest)} an hour. Leave it out to bid a quarter over the lowest, or set `vastai.fallback: true`"
        )
        return Reason("vastai.bid_usd", text)
    unpriced = replace(wanted, max_hourly_usd=None)
    affordable = ranked(unpriced, market.asks, traffic_for(spec, market.model))
    if affordable:
        least = min(hourly_usd(wanted, offer) or Decimal(0) for offer in affordable)
        text = (
            f"the cheapest of {len(affordable)} offers that fit costs {dollars(least)} an hour with its disk, and the "
            f"ceiling is {dollars(wanted.max_hourly_usd)} (the lowest of this and `budget`)"
        )
        return Reason("vastai.max_hourly_usd", text)
    counts: dict[str, int] = {}
    for offer in market.asks:
        for text in misfits(unpriced, offer):
            counts[text] = counts.get(text, 0) + 1
    most = sorted(counts, key=lambda text: (-counts[text], text))[:3]
    return Reason(
        "hardware.gpus",
        f"none of {len(market.asks)} offers fits: {'; '.join(f'{text} ({counts[text]})' for text in most)}. "
        "Wider `placement.regions`, `placement.tier` or `vastai` settings may do",
    )


def _too_few(ask: Ask, gpus: list[Gpu]) -> Iterator[Reason]:
    """Why a market with offers that fit does not do for as many servers."""
    count, fits = instances(ask.spec, _options(ask)), len(_fitting(ask, gpus)[0])
    if _options(ask).mode == "instance" and fits < count:
        text = (
            f"{count} servers were asked for, each on a machine of its own, and {fits} that fit are free: {fits} "
            "works, or wider `placement.regions`, `placement.tier` or `vastai` settings"
        )
        yield Reason("scaling.min", text)


def _nobody(wanted: Wanted) -> str:
    where = f" in {', '.join(wanted.countries)}" if wanted.countries else ""
    kinds = [*(["verified"] if wanted.verified else []), *(["data centre's"] if wanted.tier == "secure" else [])]
    counted = f" (only {' and '.join(kinds)} machines count)" if kinds else ""
    return (
        f"nobody offers {wanted.gpu_count}x {' or '.join(wanted.gpus)} with {wanted.disk_gb} GB of disk{where} now"
        f"{counted}. Other GPUs, wider `placement.regions` or `placement.tier: any` may do"
    )


def _notes(ask: Ask, offer: Offer, wanted: Wanted, half: bool) -> list[str]:
    options, market, spec = _options(ask), _market(ask), ask.spec
    notes: list[str] = []
    if ask.running is not None:
        why = _none_fits(ask, _gpus(ask)).text if market.at else "there is no price to rent another one by"
        notes.append(f"What is rented stays, and nothing could replace it now: {why}.")
    elif any(str(found.id) == offer.sku for found in market.asks):
        notes.append(_price_note(ask))
    if spec.hardware.spot:
        after = "and on demand is rented when no bid wins" if options.fallback else "or looks elsewhere"
        notes.append(f"Interruptible: a higher bid or an on-demand renter stops it; then `up` bids again, {after}.")
    if spec.hardware.spot and options.fallback and market.asks:
        notes.append(_fallback_note(ask, wanted))
    if options.plain_http:
        notes.append(
            "vastai.plain_http: no TLS. The key, prompts and answers can be read and changed by everybody on the way."
        )
    else:
        notes.append("TLS by a CA of this deployment's own: clients need its certificate (the output `ca_pem`).")
    notes.append("The host can read its guests' memory and environment, the key and all prompts among it.")
    if half:
        notes.append("A GPU without bfloat16 is among those that will do, so the model runs in half precision.")
    count = instances(spec, options)
    if spec.scaling.max > count:
        runs = "One server runs" if count == 1 else f"{count} servers run"
        notes.append(f"{runs}; scaling.max ({spec.scaling.max}) has no effect on instances.")
    return notes


def _hourly(ask: Ask, wanted: Wanted, offer: VastOffer) -> Decimal:
    """US dollars an hour with disk, as it would be billed."""
    return _gpu_usd(ask, wanted, offer) + disk_usd(wanted, offer.storage_cost)


def _fallback_note(ask: Ask, wanted: Wanted) -> str:
    """What the way out of bidding costs more."""
    market = _market(ask)
    firm = replace(wanted, interruptible=False)
    on_demand = ranked(firm, market.asks, traffic_for(ask.spec, market.model))
    if not on_demand:
        return "vastai.fallback: nothing on demand is below the ceiling now, so there is nothing to fall back to."
    price = _hourly(ask, firm, on_demand[0])
    bids = winning(wanted, _options(ask).bid_usd, ranked(wanted, market.asks, traffic_for(ask.spec, market.model)))
    told = f"on demand the best costs {dollars(price)} an hour with disk"
    if bids:
        return f"vastai.fallback: {told}, {dollars(price - _hourly(ask, wanted, bids[0]))} more."
    lowest = min((hourly_usd(wanted, o) or Decimal(0) for o in market.asks if not misfits(wanted, o)), default=None)
    more = "" if lowest is None else f", {dollars(price - lowest)} more than the lowest bid that wins"
    return f"vastai.fallback: the bid does not win now; {told}{more}."


def _price_note(ask: Ask) -> str:
    market = _market(ask)
    fits, wanted = _fitting(ask, _gpus(ask))
    prices = [_hourly(ask, wanted, offer) for offer in fits[:BEST]]
    at = f"{market.at:%H:%M} UTC" if market.at else "the last search"
    return (
        f"Best of {len(fits)} machines at {at}; `up` searches anew and pays at most "
        f"{dollars(wanted.max_hourly_usd)} an hour. The best {len(prices)} cost {dollars(min(prices))} to "
        f"{dollars(max(prices))} with disk, median {dollars(median(prices))}."
    )


def _ranged(offer: Offer, low: Decimal, high: Decimal) -> Offer:
    gpu, *others = offer.rates
    return replace(offer, rates=(replace(gpu, lowest=low, highest=high), *others))


def _certificate(name: str) -> Declaration:
    from serving.tls import server_name

    return Declaration("tls", "vllm-anywhere:index:Certificate", {"name": server_name(name)})


def _tls(name: str) -> dict[str, object]:
    from serving.tls import server_name

    return {"caPem": Ref("tls", "caPem"), "caKeyPem": Ref("tls", "caKeyPem"), "serverName": server_name(name)}


def _gpus(ask: Ask) -> list[Gpu]:
    return usable_gpus(ask.spec) if _market(ask).model else []


def _options(ask: Ask) -> VastaiOptions:
    return ask.options


def _market(ask: Ask) -> VastMarket:
    return ask.market


ADAPTER = VastaiAdapter()
