"""What `vllm-anywhere compare` shows: the cheapest offers that can be taken, and why the others can't."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from rich import box
from rich.console import RenderableType
from rich.table import Table

from serving.offers import Offer
from serving.places import residence
from serving.rank import Candidate
from serving.report import dollars, offer_terms
from serving.spec import HOURS_PER_MONTH, DeploymentSpec

_NAMES = 12


def tables(spec: DeploymentSpec, chosen: Sequence[Candidate], *, whole: bool, most: int) -> list[RenderableType]:
    """What can be taken, offer by offer, and what can't, by the reason; `most` and the GPUs' names are bounds.

    Args:
        whole: without bounds: every offer, and of what can't be taken every GPU with all its reasons.
    """
    fitting = [candidate for candidate in chosen if candidate.ok]
    shown = fitting if whole else fitting[:most]
    offers = _table("platform", "GPU", "a month", "context", "offer")
    for candidate in shown:
        offers.add_row(*_figures(candidate), _about_offer(spec, candidate))
    rest = fitting[len(shown) :]
    others = _every_misfit(chosen) if whole else _by_reason(chosen)
    found: list[RenderableType] = [offers] if shown else []
    found += [_rest(rest)] if rest else []
    return [*found, *([others] if others.row_count else [])]


def _rest(rest: Sequence[Candidate]) -> str:
    priced = [candidate for candidate in rest if not candidate.incomplete]
    parts = [f"{len(priced)} more, up to {dollars(max(c.cost for c in priced))} a month"] if priced else []
    if without := len(rest) - len(priced):
        parts.append(f"{without} whose price was not found ({_platforms(c for c in rest if c.incomplete)})")
    return f" {' and '.join(parts)}: `--all` shows them"


def _platforms(candidates: Iterable[Candidate]) -> str:
    return ", ".join(sorted({candidate.offer.platform for candidate in candidates}))


def _every_misfit(chosen: Iterable[Candidate]) -> Table:
    """Those of one GPU and with the same reasons together."""
    table = _table("platform", "GPU", "why not")
    for alike in misfits(chosen).values():
        table.add_row(*_figures(alike[0])[:2], why_not(alike))
    return table


def _by_reason(chosen: Iterable[Candidate]) -> Table:
    """The first reason of each, which is the one that weighs most, and whom it keeps out."""
    table = _table("why not", "offers", "of")
    alike: dict[str, list[Candidate]] = {}
    for candidate in chosen:
        if not candidate.ok:
            alike.setdefault(_main_reason(candidate), []).append(candidate)
    for reason, candidates in alike.items():
        gpus = list(dict.fromkeys(candidate.offer.gpu for candidate in candidates))
        more = f" and {len(gpus) - _NAMES} more" if len(gpus) > _NAMES else ""
        table.add_row(reason, str(len(candidates)), f"{_platforms(candidates)}: {', '.join(gpus[:_NAMES])}{more}")
    return table


def _main_reason(candidate: Candidate) -> str:
    first = next(_short_reasons(candidate))
    return "too small" if first.startswith("too small") else first


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in columns[:-1]:
        numbers = name in ("a month", "context", "offers")
        table.add_column(name, no_wrap=name != "why not", justify="right" if numbers else "left")
    table.add_column(columns[-1])
    return table


def _figures(candidate: Candidate) -> tuple[str, ...]:
    offer = candidate.offer
    count = f"{offer.gpu_count} x " if offer.gpu_count > 1 else ""
    if candidate.incomplete:
        price = "not found"
    else:
        price = dollars(candidate.cost)
        price = f"up to {price}" if candidate.sleeps else f"{price}{'+' if candidate.open_use else ''}"
    context = f"{candidate.fit.longest:,}" if candidate.fit and candidate.fit.ok else "-"
    return offer.platform, f"{count}{offer.gpu}", price, context


def _about_offer(spec: DeploymentSpec, candidate: Candidate) -> str:
    offer, cost = candidate.offer, candidate.monthly
    texts = [offer_terms(offer)]
    known = not (candidate.sleeps or candidate.open_use or candidate.incomplete)
    if known and cost.high > cost.low * Decimal("1.02"):
        texts.append(f"${cost.low:,.0f} to ${cost.high:,.0f}")
    if spec.placement.gdpr:
        place = residence(offer, spec.placement.regions)
        texts.append(f"in {place.where} ({place.evidence})")
    if offer.availability:
        texts.append(f"stock {offer.availability}")
    return "; ".join((*texts, _price_date(offer)))


def misfits(chosen: Iterable[Candidate]) -> dict[tuple[object, ...], list[Candidate]]:
    """What can't be taken, by what it has in common: platform, GPU and reasons."""
    alike: dict[tuple[object, ...], list[Candidate]] = {}
    for candidate in chosen:
        if not candidate.ok:
            offer = candidate.offer
            key = (
                offer.platform,
                offer.gpu,
                offer.gpu_count,
                offer.tier,
                offer.spot,
                "; ".join(_short_reasons(candidate)),
            )
            alike.setdefault(key, []).append(candidate)
    return alike


def _short_reasons(candidate: Candidate) -> Iterator[str]:
    """The reasons without what would work instead; a place that is wrong is the same reason wherever it is."""
    fit = candidate.fit
    reasons = [reason.split(". ", 1)[0] for reason in candidate.reasons]
    if fit and not fit.ok:
        missing = "; ".join(fit.shortfalls)
        reasons = [f"too small ({fit.gpu.memory_gib:.0f} GiB)" if missing in reason else reason for reason in reasons]
    for reason in reasons:
        _, elsewhere, wanted = reason.partition(" is not in ")
        yield f"not in {wanted}" if elsewhere else reason


def why_not(alike: Sequence[Candidate]) -> str:
    first = alike[0]
    if len(alike) == 1:
        return f"{offer_terms(first.offer)}: {'; '.join(_short_reasons(first))}"
    places = len({candidate.offer.region for candidate in alike})
    each = f"{len(alike)} offers" + (f" in {places} regions" if places > 1 else "")
    return f"{each}: {'; '.join(_short_reasons(first))}"


def _price_date(offer: Offer) -> str:
    dates = [rate.as_of for rate in offer.rates if rate.as_of]
    sources = "+".join(sorted({rate.source for rate in offer.rates}))
    return f"{sources} {min(dates)}" if dates else sources


def legend(spec: DeploymentSpec) -> str:
    usage = spec.usage
    use = f"{usage.requests_per_day:,} requests a day" if usage.requests_per_day is not None else "no use declared"
    where = ", ".join(spec.placement.regions) or "anywhere"
    return (
        f"{spec.model.name}, context {spec.model.max_len:,}; US dollars in a month of {HOURS_PER_MONTH} hours, {use}; "
        f"{where}. `context` is the longest request that fits, `+` what depends on a use that isn't declared. "
        "`--set KEY=VALUE` asks what if, `--fits` leaves out what can't be taken, `--json` has every number."
    )
