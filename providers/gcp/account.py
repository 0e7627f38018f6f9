"""One project on Google Cloud: who we are, whether `up` can work there, and everything in it that is ours."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from providers.account import Balance, Check, Holding
from providers.base import AuthError, PlatformError
from providers.gcp.checks import checks
from providers.gcp.client import Google, Refused, connect
from providers.gcp.machines import region_of
from providers.gcp.resources import slug_of
from providers.market import dated
from providers.native import Context
from serving.gpus import gpu
from serving.offers import Offer
from serving.spec import HOURS_PER_MONTH

PLATFORM = "gcp"
OPERATION_S = 300.0
PAUSE_S = 2.0
MARK = "vllm-anywhere"
"""The label, and the item of metadata, that hold a stack's name on Google Cloud."""

_LISTS = {
    "group": "instanceGroupManagers",
    "instance": "instances",
    "reservation": "reservations",
    "disk": "disks",
    "address": "addresses",
}
"""Kind -> Compute Engine's list of it, in the order in which they can be deleted: a group makes its VM anew."""
_DECLARED = {"group": "server", "instance": "server", "reservation": "zone", "disk": "server", "address": "address"}
"""Kind -> the name of the resource that it is in a stack."""
_NUMBER = re.compile(r"-\d{1,3}$")
"""What the names of the second server's own things, and those of others after it, end in."""


class GcpAccount:
    """The project that the credentials, or GOOGLE_PROJECT, name."""

    def __init__(self, google: Google) -> None:
        self._google = google

    def identify(self) -> str:
        project = self._project()
        self._google.get("compute", f"projects/{project}")
        return f"Google takes the credentials, and they may look at project {project}"

    def balance(self) -> Balance | None:
        """None: Google bills afterwards, so that nothing can run out."""
        return None

    def regions(self) -> frozenset[str] | None:
        return frozenset(str(one["name"]) for one in self._google.pages(f"projects/{self._project()}/regions"))

    def checks(self) -> Sequence[Check]:
        self._project()
        return list(checks(self._google))

    def holdings(self, stacks: Collection[str]) -> list[Holding]:
        labels = {slug_of(f"{stack}/name/1"): stack for stack in stacks}
        return [*self._compute(labels), *self._secrets(labels)]

    def release(self, context: Context, holding: Holding) -> None:
        google = self._google
        service = "secretmanager" if holding.kind == "secret" else "compute"
        try:
            operation = google.call("DELETE", service, holding.id)
            begun = context.clock()
            while service == "compute" and operation.get("status") != "DONE":
                if context.clock() - begun > OPERATION_S:
                    raise PlatformError(f"Google has not deleted it within {OPERATION_S:.0f} s; ask again later")
                context.wait(PAUSE_S)
                at = "/".join(holding.id.split("/")[:4])
                operation = google.get("compute", f"{at}/operations/{operation['name']}")
        except Refused as error:
            if error.status != 404:
                raise
            return
        if problem := (operation.get("error") or {}).get("errors"):
            raise PlatformError("; ".join(str(one.get("message", "")) for one in problem))

    def _project(self) -> str:
        if not self._google.project:
            raise AuthError("no project is set: `export GOOGLE_PROJECT=<id>`")
        return self._google.project

    def _compute(self, labels: Mapping[str, str]) -> Iterator[Holding]:
        project = self._project()
        prices = dated(PLATFORM)
        for kind, name in _LISTS.items():
            for _, scoped in self._google.pages(f"projects/{project}/aggregated/{name}", returnPartialSuccess="false"):
                for one in scoped.get(name) or []:
                    slug = _slug(kind, one, labels)
                    if not slug or _belongs_to_another(kind, one):
                        continue
                    number = _number(str(one.get("name", "")), slug)
                    label = f"{labels[slug]}/{_DECLARED[kind]}{number}/1" if slug in labels else slug
                    yield Holding(
                        kind,
                        str(one["selfLink"]).partition("/compute/v1/")[2],
                        label,
                        str(one.get("status", "")).lower(),
                        hourly_usd(kind, one, prices),
                        str(one.get("creationTimestamp", "")),
                    )

    def _secrets(self, labels: Mapping[str, str]) -> Iterator[Holding]:
        project = self._project()
        path = f"projects/{project}/secrets"
        for one in self._google.pages(path, "secrets", "secretmanager", filter="labels.managed-by=vllm-anywhere"):
            slug = _own_label(one)
            id = str(one["name"]).rpartition("/")[2]
            number = _number(id, slug)
            resource = f"{id.removeprefix(slug).removesuffix(number).strip('-')}-secret{number}"
            label = f"{labels[slug]}/{resource}/1" if slug in labels else slug
            yield Holding("secret", f"{path}/{id}", label, "", None, str(one.get("createTime", "")))


def hourly_usd(kind: str, one: Mapping[str, Any], prices: Iterable[Offer]) -> Decimal | None:
    """US dollars an hour now at dated list prices; None when no price of it is known.

    `one` is Compute Engine's own description. A group costs what its VM does, of which it says nothing; a VM's disks
    are the VM's, and its address is listed by itself.
    """
    match kind:
        case "address":
            meter = "external IPv4" if one.get("status") == "IN_USE" else "reserved IPv4"
            return _rate(prices, _last(one.get("region")), meter)
        case "disk":
            return _disk_usd(one.get("sizeGb"), one, prices)
        case "instance":
            parts = [_machine_usd(one, prices)]
            parts += [_disk_usd(disk.get("diskSizeGb"), one, prices) for disk in one.get("disks") or []]
            known = [part for part in parts if part is not None]
            return sum(known, Decimal(0)) if len(known) == len(parts) else None
        case _:
            return None


def _disk_usd(gigabytes: Any, where: Mapping[str, Any], prices: Iterable[Offer]) -> Decimal | None:
    month = _rate(prices, region_of(_last(where.get("zone"))), "boot disk")
    return None if month is None else month * int(gigabytes or 0) / HOURS_PER_MONTH


def _machine_usd(one: Mapping[str, Any], prices: Iterable[Offer]) -> Decimal | None:
    if one.get("status") in ("TERMINATED", "STOPPED", "SUSPENDED"):
        return Decimal(0)
    spot = (one.get("scheduling") or {}).get("provisioningModel") == "SPOT"
    wanted = (_last(one.get("machineType")), region_of(_last(one.get("zone"))), spot)
    cards = [_last(each.get("acceleratorType")) for each in one.get("guestAccelerators") or []]
    for offer in prices:
        carries = not cards or cards[0] in gpu(offer.gpu).platform_names.get(PLATFORM, ())
        if carries and (offer.sku, offer.region, offer.spot) == wanted:
            parts = [
                None if rate.unit_price is None or rate.quantity is None else rate.unit_price * rate.quantity
                for rate in offer.rates
                if rate.bills == "running" and rate.meter != "external IPv4"
            ]
            known = [part for part in parts if part is not None]
            return sum(known, Decimal(0)) if len(known) == len(parts) else None
    return None


def _rate(prices: Iterable[Offer], region: str, meter: str) -> Decimal | None:
    found = (rate for offer in prices if offer.region == region for rate in offer.rates if rate.meter == meter)
    return next((rate.unit_price for rate in found), None)


def _slug(kind: str, one: Mapping[str, Any], labels: Collection[str]) -> str:
    """The name on Google Cloud of the stack that made it; "" for what none of ours made.

    Groups and reservations hold no labels: there only the name of a known stack counts.
    """
    if kind not in ("group", "reservation"):
        return _own_label(one)
    name = str(one.get("name", ""))
    return next((slug for slug in (name, _NUMBER.sub("", name)) if slug in labels), "")


def _number(name: str, slug: str) -> str:
    """`-2` of what is the second server's; "" for the first's, and for what all share."""
    found = _NUMBER.search(name.removeprefix(slug))
    return found[0] if found else ""


def _own_label(one: Mapping[str, Any]) -> str:
    labels = one.get("labels") or {}
    return str(labels.get(MARK, "")) if labels.get("managed-by") == MARK else ""


def _belongs_to_another(kind: str, one: Mapping[str, Any]) -> bool:
    """Whether it ends with something else that is listed: a group's VM, or a VM's disk."""
    if kind == "disk":
        return bool(one.get("users"))
    items = (one.get("metadata") or {}).get("items") or []
    return kind == "instance" and any(item.get("key") == "created-by" for item in items)


def _last(link: object) -> str:
    return str(link or "").rpartition("/")[2]


def open_account(timeout_s: float) -> GcpAccount:
    """The account of the environment's credentials.

    Raises:
        AuthError: there are none.
    """
    return GcpAccount(connect(timeout_s))
