"""One rented instance, as the API answers it. Nearly every field may be null or absent: nothing here insists on any."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from providers.vastai.offers import FIXED, STORAGE_MONTH_HOURS, Number, country_of, gpu_called, rates_of
from providers.vastai.states import Seen
from serving.offers import Offer, Tier


class VastInstance(BaseModel):
    """An instance. `extra_env`, tokens and the like are not read at all, so that they can't be shown."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    number: int = Field(alias="id")
    tag: str | None = Field(default=None, alias="label")
    actual_status: str | None = None
    intended_status: str | None = None
    cur_state: str | None = None
    next_state: str | None = None
    status_msg: str | None = None
    public_ipaddr: str | None = None
    ports: dict[str, Any] | None = None
    machine_id: int | None = None
    gpu_name: str | None = None
    gpu_ram: Number | None = None
    num_gpus: int | None = None
    geolocation: str | None = None
    dph_base: Number | None = None
    min_bid: Number | None = None
    is_bid: bool | None = None
    storage_cost: Number | None = None
    inet_down_cost: Number | None = None
    inet_up_cost: Number | None = None
    disk_space: Number | None = None
    start_date: Number | None = None
    end_date: Number | None = None
    image_uuid: str | None = None
    image_args: list[str] | None = None

    @field_validator("ports", "image_args", mode="before")
    @classmethod
    def _or_nothing(cls, value: object, info: Any) -> object:
        """A list of numbers and a text have been documented for these as well."""
        wanted = dict if info.field_name == "ports" else list
        return value if isinstance(value, wanted) else None

    @property
    def id(self) -> str:
        return str(self.number)

    @property
    def label(self) -> str:
        return self.tag or ""

    @property
    def stopped(self) -> bool:
        return {self.cur_state, self.intended_status, self.next_state} == {"stopped"}

    def address(self, port: int) -> str:
        """`host:port` from outside for a port of the container; "" while there is none."""
        mapped = (self.ports or {}).get(f"{port}/tcp")
        host = (self.public_ipaddr or "").strip()
        if not host or not isinstance(mapped, list) or not mapped:
            return ""
        outside = mapped[0].get("HostPort") if isinstance(mapped[0], dict) else None
        return f"{host}:{outside}" if outside else ""

    def hourly_usd(self, disk_gb: int) -> Decimal | None:
        """US dollars an hour while it runs, GPU and disk, as it is billed; None when the answer has no price."""
        if self.dph_base is None:
            return None
        return self.dph_base + disk_gb * (self.storage_cost or Decimal(0)) / STORAGE_MONTH_HOURS

    def offer(self, tier: Tier, day: date) -> Offer:
        """What was rented, at the prices that are billed as of that day, in the terms that every platform shares."""
        note = "the bid, which is what it costs; it may be outbid" if self.is_bid else FIXED
        return Offer(
            platform="vastai",
            kind="instance",
            sku=f"machine {self.machine_id}" if self.machine_id else "a machine",
            gpu=gpu_called(self.gpu_name or "", self.gpu_ram),
            gpu_count=self.num_gpus or 1,
            region=(self.geolocation or "").strip(", "),
            country=country_of(self.geolocation),
            tier=tier,
            spot=bool(self.is_bid),
            rates=rates_of(self, self.dph_base, note, "live", day),
        )

    def seen(
        self,
        port: int,
        now: datetime,
        *,
        age_s: float,
        load_limit_s: float,
        answers: bool | None = None,
        credit: bool | None = None,
    ) -> Seen:
        """What the state table decides on."""
        return Seen(
            status=self.actual_status or "",
            message=self.status_msg or "",
            stopped=self.stopped,
            is_bid=bool(self.is_bid),
            addressed=bool(self.address(port)),
            answers=answers,
            age_s=age_s,
            load_limit_s=load_limit_s,
            end_in_s=None if self.end_date is None else float(self.end_date) - now.timestamp(),
            credit=credit,
        )
