"""What a report holds, as plain data: `--json` prints it, and the page counts on from it.

Money and every number that becomes money is text, so that the page's own decimals start from the same digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ops.breakeven_report import facts as breakeven_facts
from ops.compare import offer_facts
from ops.compare_view import misfits, why_not
from ops.fit import fit_facts
from ops.report_bench import Bench
from serving import VERSION
from serving.apis import ApiModel
from serving.breakeven import OBSERVED_ON, Breakeven, SelfHost, Terms, breakeven
from serving.cost import BASED_ON_USE, Assumptions
from serving.fit import changes_on
from serving.lines import cents
from serving.models import Model
from serving.offers import Rate
from serving.places import residence, title
from serving.preflight import Preflight
from serving.rank import Candidate
from serving.report import UNITS, offer_terms
from serving.scale_to_zero import service_times
from serving.spec import HOURS_PER_MONTH, DeploymentSpec

MOST_OFFERS = 250
"""Offers in one page; of a market of thousands, the cheapest of each platform, GPU and way of renting come first."""

STYLES: tuple[Mapping[str, Any], ...] = (
    {
        "id": "on",
        "name": "Always on",
        "what": "A rented server that runs day and night",
        "scales": False,
        "spot": False,
    },
    {
        "id": "sleeps",
        "name": "Sleeps when idle",
        "what": "A rented server that stops when nobody asks; the first request after a pause waits for a start",
        "scales": True,
        "spot": False,
    },
    {
        "id": "spot",
        "name": "Interruptible",
        "what": "A rented server at a discount that the platform may take back at any minute",
        "scales": False,
        "spot": True,
    },
)


@dataclass(frozen=True)
class Report:
    """Everything a report says.

    Attributes:
        stack: its name, "" for a spec of its own.
        spec: with `usage.requests_per_day` set.
        example: whether that is an example, because the spec declares no use.
        taken: what can be rented, interruptible offers included, cheapest first.
        refused: what can't, with the reasons.
        gpus: the model on each GPU.
        growth: more requests each month, in per cent.
    """

    stack: str
    spec: DeploymentSpec
    example: bool
    model: Model
    assumed: Assumptions
    taken: Sequence[Candidate]
    refused: Sequence[Candidate]
    gpus: Sequence[Preflight]
    apis: Sequence[ApiModel]
    api: str
    growth: int
    bench: Sequence[Bench]
    notes: Sequence[str]
    today: date

    @property
    def shown(self) -> list[Candidate]:
        """The offers of the page, cheapest first."""
        if len(self.taken) <= MOST_OFFERS:
            return list(self.taken)
        alike: dict[tuple[object, ...], int] = {}
        ranks: list[tuple[int, int]] = []
        for index, candidate in enumerate(self.taken):
            offer = candidate.offer
            key = (offer.platform, offer.kind, offer.gpu, offer.spot)
            ranks.append((alike.get(key, 0), index))
            alike[key] = alike.get(key, 0) + 1
        return [self.taken[index] for index in sorted(index for _, index in sorted(ranks)[:MOST_OFFERS])]

    @property
    def terms(self) -> Terms:
        """What the break-even takes for granted."""
        return Terms(assumed=self.assumed)

    @property
    def chosen_api(self) -> ApiModel | None:
        """The API that the page compares with first: the asked one, else the cheapest."""
        usage = self.spec.usage
        named = [api for api in self.apis if self.api.lower() in api.name.lower() and api.takes(usage.input_tokens)]
        found = breakeven(self.spec, (), named, self.terms).against
        return min(found, key=lambda one: (one.per_request, one.api.name)).api if found else None

    def compared(self) -> Breakeven:
        """The break-even at the declared use, interruptible offers left out."""
        offers = [candidate.offer for candidate in self.shown if candidate.priced and not candidate.offer.spot]
        return breakeven(self.spec, offers, self.apis, self.terms)


def json_facts(report: Report) -> dict[str, Any]:
    """The report for programs: what the page shows before anyone touches a control."""
    found, api = report.compared(), report.chosen_api
    requests = found.requests_per_month or 0
    return {
        **_about(report),
        "offers": [offer_facts(report.spec, candidate) for candidate in report.shown],
        "breakeven": breakeven_facts(found),
        "six_months": {
            "growth_percent": report.growth,
            "api": api.name if api else None,
            "months": [_month(found, api, each) for each in grown(requests, report.growth)],
        },
        "fit": [fit_facts(one, "") for one in report.gpus],
        "bench": [asdict(one) for one in report.bench],
    }


def page_facts(report: Report) -> dict[str, Any]:
    """What the page counts with. Its keys are those that `data/report/*.js` read."""
    spec, assumed, terms, api = report.spec, report.assumed, report.terms, report.chosen_api
    names = sorted(report.shown, key=_name)
    order = {id(candidate): index for index, candidate in enumerate(names)}
    rates: dict[Rate, int] = {}
    for candidate in report.shown:
        for rate in candidate.offer.rates:
            rates.setdefault(rate, len(rates))
    return {
        **_about(report),
        "month_hours": HOURS_PER_MONTH,
        "disk_gb": spec.hardware.disk_gb,
        "max_num_seqs": spec.engine.max_num_seqs,
        "plan": {
            "requests": spec.usage.requests_per_day,
            "input": spec.usage.input_tokens,
            "output": spec.usage.output_tokens,
            "idle": spec.scaling.idle_timeout_s,
            "min": spec.scaling.min,
            "max": spec.scaling.max,
            "spot": spec.hardware.spot,
            "hours": str(assumed.hours),
            "growth": report.growth,
            "api": api.name if api else "",
        },
        "assumed": {
            name: str(value) for name, value in asdict(assumed).items() if name not in ("concurrency", "traffic")
        },
        "slots": min(assumed.concurrency, spec.engine.max_num_seqs),
        "traffic": [str(share) for share in assumed.traffic],
        "terms": {
            "speed": str(terms.tokens_per_s),
            "peak": str(terms.peak),
            "maintenance": str(terms.maintenance),
            "max_servers": terms.max_servers,
            "measured_on": OBSERVED_ON,
        },
        "styles": STYLES,
        "service_times": service_times(),
        "rates": [_rate(rate) for rate in rates],
        "offers": [
            {
                **_offer(report, candidate, order[id(candidate)]),
                "rates": [rates[rate] for rate in candidate.offer.rates],
            }
            for candidate in report.shown
        ],
        "left_out": len(report.taken) - len(report.shown),
        "refused": list(_refused(report.refused)),
        "gpus": [_gpu(one) for one in report.gpus],
        "apis": [_api(one) for one in report.apis],
        "bench": [asdict(one) for one in report.bench],
    }


def grown(requests: int, percent: int) -> Iterator[int]:
    """Requests of six months, the first of which is given, each more than the last by that many per cent."""
    for month in range(6):
        yield round(requests * Fraction(100 + percent, 100) ** month)


def _month(found: Breakeven, api: ApiModel | None, requests: int) -> dict[str, Any]:
    def money(amount: Decimal | None) -> str | None:
        return None if amount is None else str(cents(amount))

    def hosting(host: SelfHost) -> str | None:
        return money(found.monthly(host, requests))

    return {
        "requests": requests,
        "api_usd": money(found.api_monthly(api, requests)) if api else None,
        **{f"{host.style.replace(' ', '_')}_usd": hosting(host) for host in found.hosts},
    }


def _about(report: Report) -> dict[str, Any]:
    spec = report.spec
    parts = {"model", "engine", "hardware", "placement", "scaling", "usage", "budget"}
    return {
        "version": VERSION,
        "stack": report.stack,
        "provider": title(spec.provider),
        "date": report.today.isoformat(),
        "spec": spec.model_dump(mode="json", include=parts),
        "example_use": report.example,
        "notes": list(report.notes),
    }


def _name(candidate: Candidate) -> tuple[object, ...]:
    offer = candidate.offer
    return offer.platform, offer.kind, offer.sku, offer.region, offer.tier, offer.spot


def _offer(report: Report, candidate: Candidate, order: int) -> dict[str, Any]:
    """`order` is the place among offers of equal cost."""
    offer, fit = candidate.offer, candidate.fit
    place = residence(offer, report.spec.placement.regions)
    return {
        "order": order,
        "platform": title(offer.platform),
        "provider": offer.platform,
        "kind": offer.kind,
        "sku": offer.sku,
        "gpu": offer.gpu,
        "count": offer.gpu_count,
        "region": offer.region,
        "tier": offer.tier,
        "terms": offer_terms(offer),
        "scales": offer.kind in BASED_ON_USE,
        "spot": offer.spot,
        "where": place.where,
        "longest": fit.longest if fit else None,
        "availability": offer.availability,
    }


def _rate(rate: Rate) -> dict[str, Any]:
    def text(value: Decimal | None) -> str | None:
        return None if value is None else f"{value:f}"

    return {
        "meter": rate.meter,
        "unit": rate.unit,
        "per": UNITS[rate.unit],
        "price": text(rate.unit_price),
        "lowest": text(rate.lowest),
        "highest": text(rate.highest),
        "bills": rate.bills,
        "quantity": text(rate.quantity),
        "discount": text(rate.discount),
        "sustained_use": rate.sustained_use,
        "month_hours": rate.month_hours,
        "source": rate.source,
        "url": rate.url if rate.url.startswith("https://") else "",
        "as_of": rate.as_of.isoformat() if rate.as_of else None,
        "assumption": rate.assumption,
    }


def _refused(candidates: Iterable[Candidate]) -> Iterator[dict[str, Any]]:
    for alike in misfits(candidates).values():
        offer = alike[0].offer
        count = f"{offer.gpu_count} x " if offer.gpu_count > 1 else ""
        yield {"platform": title(offer.platform), "gpu": f"{count}{offer.gpu}", "why": why_not(alike)}


def _gpu(found: Preflight) -> dict[str, Any]:
    fit = found.fit
    memory = fit.memory
    first = found.refusals[0] if found.refusals else None
    changes = changes_on(fit, "")
    return {
        "name": fit.gpu.name,
        "ok": found.ok,
        "memory": round(memory.total, 2),
        "weights": round(memory.weights, 2),
        "working": round(memory.activation + memory.non_torch + memory.reserved_graphs, 2),
        "cache": round(max(0.0, memory.kv), 2),
        "cache_tokens": memory.kv_tokens,
        "longest": fit.longest if found.ok else 0,
        "at_once": fit.concurrent if found.ok else 0,
        "extrapolated": fit.extrapolated,
        "why": f"{first.wrong}." if first else "",
        "helps": str(changes[0]) if changes and first and not fit.ok else "",
    }


def _api(api: ApiModel) -> dict[str, Any]:
    return {
        "name": api.name,
        "vendor": api.vendor,
        "input_per_m": f"{api.input_per_m:f}",
        "output_per_m": f"{api.output_per_m:f}",
        "token_factor": f"{api.token_factor:f}",
        "prompt_over": api.prompt_over,
        "prompt_up_to": api.prompt_up_to,
        "url": api.url if api.url.startswith("https://") else "",
        "as_of": api.as_of.isoformat() if api.as_of else None,
        "source": api.source,
        "note": api.note,
    }
