"""Renting until something serves: fresh search, the best offer, the next one when it is taken or fails, within caps.

Every rental goes through `providers.lifecycle.ensure_one`, so that there is never more than one under the label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal

from providers.base import Interrupted, NoCapacity, PlatformError
from providers.lifecycle import LOOKUP_PAUSES_S, ensure_gone, ensure_one
from providers.native import Context
from providers.vastai.client import LowBid, TooFrequent, Vast
from providers.vastai.instances import VastInstance
from providers.vastai.launch import Order, body
from providers.vastai.offers import VastOffer, parse_offers
from providers.vastai.search import best_per_machine, hourly_usd, misfits, query, ranked, winning
from providers.vastai.siblings import Claims, machines_of_siblings
from providers.vastai.states import PROVISION_S, Verdict, action_for
from serving.failures import diagnose, explain

MISSES_PER_SEARCH = 5
"""Offers that may turn out to be taken before the market is searched anew."""
SEARCHES = 3
TOO_FREQUENT_PAUSES_S = (5.0, 10.0, 20.0)
"""Waits before an offer is asked for again after a 429."""
VISIBLE_AFTER_S = 60.0
"""Seconds that a new instance may be missing from the answers."""
SILENCE_S = 300.0
"""Seconds that the API may fail to answer while an instance starts."""
POLL_S = (2.0, 3.0, 5.0, 10.0)
PRICE_TOLERANCE = Decimal("0.01")
_HOSTS_FAULT = frozenset({"driver-too-old", "memory-taken", "no-space"})
_LOG_LINES = 200

Answers = Callable[[str], bool]
"""Whether the server at `host:port` answers `/health`."""
ReadLog = Callable[[str, int], list[str]]


class StillThere(PlatformError):
    """An instance that was to be destroyed may still exist: its id has to stay known."""


class Kept(PlatformError):
    """Renting ends with `instance`, which is paid for and does not run."""

    def __init__(self, message: str, instance: VastInstance) -> None:
        super().__init__(message)
        self.instance = instance


@dataclass(frozen=True)
class Rental:
    """What serves, or exists without serving: `problem` says why."""

    instance: VastInstance
    tried: tuple[str, ...]
    problem: str = ""


@dataclass
class Renter:
    """One order, carried out with the API, a health check, a log reader and a context.

    `claims` keeps servers of one stack, which are rented at the same time, on machines of their own.
    """

    vast: Vast
    order: Order
    context: Context
    answers: Answers
    read_log: ReadLog
    claims: Claims = field(default_factory=Claims)
    tried: list[str] = field(default_factory=list[str])
    wasted: Decimal = Decimal(0)
    _excluded: set[int] = field(default_factory=set[int])
    _siblings: frozenset[int] = frozenset()
    _offer: VastOffer | None = None
    _interruptible: bool = False
    _ended: int = 0

    def rent(self) -> Rental:
        """One instance that serves.

        Raises:
            PlatformError: nothing could be rented, or nothing that was rented served; all of it is destroyed then.
        """
        for attempt in range(1, self.order.attempts + 1):
            try:
                one = self._one()
            except Kept as error:
                return Rental(error.instance, tuple(self.tried), str(error))
            begun = self.context.clock()
            try:
                one, verdict = self.until_serving(one, new=True)
                if verdict.do == "keep":
                    return Rental(one, tuple(self.tried))
                if verdict.do == "surface":
                    return Rental(one, tuple(self.tried), f"{verdict.why}; {self._bills(one)}")
                self._give_up(one, verdict, self.context.clock() - begun)
            except Interrupted:
                return Rental(one, tuple(self.tried), f"cancelled; {self._bills(one)}")
            except StillThere as error:
                return Rental(one, tuple(self.tried), str(error))
            if attempt < self.order.attempts and self.wasted > self.order.waste_usd:
                raise PlatformError(
                    self._told(f"machines that failed have cost about ${self.wasted:.2f}, more than the cap")
                )
        raise PlatformError(self._told(f"none of {self.order.attempts} machines came to serve"))

    def until_serving(self, one: VastInstance, *, new: bool = False) -> tuple[VastInstance, Verdict]:
        """Follow an instance until the table says anything but "wait". The bill of a `new` one is checked.

        Raises:
            PlatformError: a new one is billed otherwise than it was shown; it is destroyed by then.
        """
        context, order = self.context, self.order
        begun = since = heard = context.clock()
        status, polls = one.actual_status, 0
        while True:
            try:
                now = self.vast.get(one.id)
                heard = context.clock()
            except PlatformError as error:
                if context.clock() - heard > SILENCE_S:
                    return one, Verdict("surface", f"Vast.ai has not answered for {SILENCE_S:.0f} s: {error}")
                now = one
            if now is None:
                if context.clock() - begun > VISIBLE_AFTER_S:
                    return one, Verdict("replace", "it is gone", blame_host=True)
            else:
                if now.actual_status != status:
                    status, since = now.actual_status, context.clock()
                if new:
                    self._check_bill(now)
                one = now
                address = now.address(order.port)
                up = bool(address) and now.actual_status == "running" and self.answers(address)
                seen = now.seen(
                    order.port,
                    context.now(),
                    age_s=context.clock() - since,
                    load_limit_s=order.serve_s,
                    answers=up if address else None,
                )
                verdict = action_for(seen)
                if verdict.do != "wait" and not (verdict.do == "keep" and not up):
                    return now, verdict
                waited = context.clock() - begun
                # Each state has its own limit, and a host that goes to and fro would reach none of them.
                if waited > PROVISION_S + 2 * order.serve_s:
                    return now, Verdict(
                        "replace", f"it has not settled after {waited:.0f} s", blame_host=True, logs=True
                    )
                context.progress(f"instance {now.id}: {verdict.why}")
            context.wait(POLL_S[min(polls, len(POLL_S) - 1)])
            polls += 1

    def _one(self) -> VastInstance:
        return ensure_one(
            self.context,
            self.order.label,
            create=self._walk,
            labelled=self._labelled,
            destroy=self._gone,
            same=self.order.made,
        )

    def _labelled(self, label: str) -> list[VastInstance]:
        """What has the label; remembers where the stack's other servers are."""
        everything = self.vast.instances()
        self._siblings = machines_of_siblings(label, everything)
        return [one for one in everything if one.label == label]

    def _walk(self) -> VastInstance:
        """Search, and rent the first offer that is still there."""
        for _ in range(SEARCHES):
            misses = 0
            offers, interruptible = self._market()
            for offer in offers:
                if misses == MISSES_PER_SEARCH:
                    break
                if not self.claims.take(offer.machine_id, self.order.label):
                    continue
                try:
                    return self._take(offer, interruptible)
                except NoCapacity as error:
                    self.claims.give_up(offer.machine_id, self.order.label)
                    self._note(offer, str(error))
                    misses += 1
            else:
                break
        raise NoCapacity(self._told("no offer could be rented"))

    def _market(self) -> tuple[list[VastOffer], bool]:
        excluded = self.order.wanted.excluded | self._excluded | self._siblings
        wanted = replace(self.order.wanted, excluded=excluded)
        offers, unread = parse_offers(self.vast.search(query(wanted)))
        fits = best_per_machine(ranked(wanted, offers, self.order.traffic))
        fitting = winning(wanted, self.order.bid_usd, fits) if wanted.interruptible else fits
        if fitting:
            self.context.progress(f"{len(fitting)} of {len(offers)} offers fit")
            return fitting, wanted.interruptible
        lowest = min((hourly_usd(wanted, offer) or Decimal(0) for offer in fits), default=None)
        if lowest is not None:
            self._tell(f"the bid wins none of {len(fits)} machines, the lowest that does costs ${lowest:.4f} with disk")
        if wanted.interruptible and self.order.fallback:
            firm = replace(wanted, interruptible=False)
            offers, unread = parse_offers(self.vast.search(query(firm)))
            fitting = best_per_machine(ranked(firm, offers, self.order.traffic))
            if fitting:
                price = hourly_usd(firm, fitting[0]) or Decimal(0)
                more = "" if lowest is None else f", ${price - lowest:.4f} more than the lowest bid"
                self._tell(f"no bid wins; on demand costs ${price:.4f} an hour with disk{more}")
                return fitting, False
        if lowest is not None:
            return [], True
        if offers:
            reasons = [reason for offer in offers[:3] for reason in misfits(wanted, offer)[:1]]
            self.tried.append(f"{len(offers)} offers found, none fits: {'; '.join(dict.fromkeys(reasons))}")
        else:
            self.tried.append(f"no offers{f' ({unread} could not be read)' if unread else ''}")
        return [], wanted.interruptible

    def _take(self, offer: VastOffer, interruptible: bool) -> VastInstance:
        """Rent one offer; the instance as far as it is known yet."""
        self._offer, self._interruptible = offer, interruptible
        sent = body(self.order, offer, self.context.now(), interruptible=interruptible)
        rented = _young("0", self.order.label, offer, sent)
        price = rented.hourly_usd(self.order.wanted.disk_gb) or Decimal(0)
        self.context.progress(f"renting {offer.gpu_name} in {offer.geolocation}, ${price:.3f} an hour with disk")
        pauses = iter(TOO_FREQUENT_PAUSES_S)
        while True:
            try:
                return _young(self.vast.rent(offer.id, sent), self.order.label, offer, sent)
            except LowBid as error:
                self._unwon(_young(error.id, self.order.label, offer, sent))
                raise
            except TooFrequent as error:
                pause = next(pauses, None)
                if pause is None:
                    raise PlatformError(f"{error}. Nothing is rented") from error
                self.context.wait(pause)
                # The limiter says that nothing was done; it is cheap to see for oneself.
                if left := self.vast.labelled(self.order.label):
                    return left[0]

    def _unwon(self, one: VastInstance) -> None:
        """Destroy what exists, stopped, because its bid does not win: its disk bills.

        Raises:
            Kept: it may still exist.
        """
        try:
            # Until it is shown, "not there" does not mean that it is gone.
            for pause in LOOKUP_PAUSES_S:
                self.context.wait(pause)
                if self._shown(one.id):
                    break
            self._gone(one.id)
        except (StillThere, Interrupted) as error:
            raise Kept(f"the bid for instance {one.id} does not win, and its disk bills: {error}", one) from error

    def _shown(self, id: str) -> bool:
        try:
            return self.vast.get(id) is not None
        except Interrupted:
            raise
        except PlatformError:
            return False

    def _check_bill(self, one: VastInstance) -> None:
        """What is billed against what was asked for.

        Raises:
            PlatformError: it is another kind or price; it is destroyed by then.
        """
        offer, ceiling = self._offer, self.order.wanted.max_hourly_usd
        hourly, wrong = one.hourly_usd(self.order.wanted.disk_gb), ""
        if hourly is not None and ceiling is not None and hourly > ceiling * (1 + PRICE_TOLERANCE):
            wrong = f"it is billed at ${hourly:.4f} an hour with disk, over vastai.max_hourly_usd ({ceiling})"
        elif offer is None or one.machine_id != offer.machine_id:
            return
        elif one.is_bid is not None and one.is_bid != self._interruptible:
            wrong = f"it is billed {'as interruptible' if one.is_bid else 'on demand'}, which was not asked for"
        elif not self._interruptible and one.dph_base is not None:
            shown = offer.dph_base
            if one.dph_base > shown * (1 + PRICE_TOLERANCE):
                wrong = f"it is billed at ${one.dph_base} an hour for the GPU, and ${shown} was shown"
        if wrong:
            self._gone(one.id)
            raise PlatformError(f"instance {one.id} was rented and destroyed: {wrong}. Nothing is billed any more")

    def _give_up(self, one: VastInstance, verdict: Verdict, seconds: float) -> None:
        """Log, destroy, exclude; ends it all when another machine can't help."""
        log = self._log(one) if verdict.logs else []
        self._gone(one.id)
        hourly = one.hourly_usd(self.order.wanted.disk_gb)
        self.wasted += (hourly or Decimal(0)) * Decimal(str(round(seconds, 1))) / 3600
        if one.machine_id is not None:
            self._excluded.add(one.machine_id)
        self.tried.append(f"machine {one.machine_id} ({one.gpu_name}): {verdict.why}")
        known = diagnose(log)
        ended = one.actual_status == "exited"
        self._ended += ended
        if ended and ((known is not None and known.name not in _HOSTS_FAULT) or self._ended > 1):
            raise PlatformError(explain(self._told("the server ends by itself, on any machine"), log))

    def _log(self, one: VastInstance) -> list[str]:
        try:
            return self.read_log(one.id, _LOG_LINES)
        except PlatformError as error:
            self.context.progress(f"its log can't be read: {error}")
            return []

    def _gone(self, id: str) -> None:
        """Destroy, and return once it is gone.

        Raises:
            StillThere: it is not, as far as can be told.
        """
        try:
            ensure_gone(
                self.context, id, destroy=self.vast.destroy, exists=lambda wanted: self.vast.get(wanted) is not None
            )
        except Interrupted:
            raise
        except PlatformError as error:
            raise StillThere(f"instance {id} could not be destroyed and may be billed: {error}") from error

    def _note(self, offer: VastOffer, why: str) -> None:
        self.tried.append(f"offer {offer.id} (machine {offer.machine_id}, {offer.gpu_name}): {why}")
        self.context.progress(why)

    def _tell(self, what: str) -> None:
        self.tried.append(what)
        self.context.progress(what)

    def _bills(self, one: VastInstance) -> str:
        hourly = one.hourly_usd(self.order.wanted.disk_gb)
        price = f"about ${hourly:.3f} an hour" if hourly is not None else "money"
        return f"instance {one.id} costs {price}; `pulumi up` goes on, `pulumi destroy` ends it"

    def _told(self, what: str) -> str:
        tried = "\n".join(f"  - {line}" for line in self.tried) or "  - nothing"
        return (
            f"Vast.ai: {what}. Nothing of it is left running. Tried:\n{tried}\n"
            "Widen vllm-anywhere:hardware.gpus, placement.regions or vastai.min_reliability, or raise "
            "vastai.max_hourly_usd"
        )


def _young(id: str, label: str, offer: VastOffer, sent: dict[str, object]) -> VastInstance:
    """What is known of an instance before the API shows it."""
    return VastInstance.model_validate(
        {
            "id": int(id),
            "label": label,
            "machine_id": offer.machine_id,
            "gpu_name": offer.gpu_name,
            "num_gpus": offer.num_gpus,
            "geolocation": offer.geolocation,
            "dph_base": sent.get("price", offer.dph_base),
            "storage_cost": offer.storage_cost,
            "is_bid": "price" in sent,
        }
    )
