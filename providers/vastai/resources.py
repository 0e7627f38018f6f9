"""`vllm-anywhere:vastai:Instance`: constraints in, the machine that was found and rented out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, SecretStr

from providers.base import PlatformError
from providers.lifecycle import ensure_gone
from providers.native import Context, Created, Failure, Found, Labelled, NativeResource, Properties, generation_in
from providers.vastai.serverless import SERVERLESS
from providers.vastai.states import Verdict, action_for

if TYPE_CHECKING:
    from providers.vastai.client import Vast
    from providers.vastai.instances import VastInstance
    from providers.vastai.launch import Order
    from providers.vastai.rent import Renter

RUNNING = "running"


class InstanceInputs(Labelled):
    """What will do, what it may cost, and what it runs."""

    gpus: list[str] = Field(description="GPUs that will do, by the catalogue's names.")
    gpu_count: int = Field(default=1, description="GPUs in one machine.")
    min_memory_gib: float = Field(default=0, description="Memory of one GPU, GiB.")
    min_capability: str = Field(default="7.5", description="Lowest compute capability.")
    cuda: str = Field(description="CUDA release inside the image; the host's driver has to take it.")
    countries: list[str] = Field(default=[], description="ISO 3166 alpha-2 codes; empty for anywhere.")
    tier: Literal["any", "secure", "community"] = Field(default="secure", description="`secure`: data centres only.")
    verified: bool = Field(default=True, description="Only hosts that Vast.ai has verified.")
    static_ip: bool = Field(default=False, description="Only hosts whose address does not change.")
    min_reliability: Decimal = Field(default=Decimal("0.95"), description="Share of time that the host was up.")
    min_download_mbps: int = Field(default=300, description="Mbit/s; image and weights come through it.")
    min_duration_h: int = Field(default=24, description="Hours until the host's own end date.")
    disk_gb: int = Field(default=60, description="Disk in GB; it can't be changed later.")
    max_hourly_usd: Decimal | None = Field(default=None, description="Ceiling for GPU and disk together, an hour.")
    download_gb: Decimal = Field(default=Decimal(18), description="GB that come in a month, for ranking by cost.")
    upload_gb: Decimal = Field(default=Decimal(0), description="GB that go out a month, for ranking by cost.")
    excluded_machines: list[int] = Field(default=[], description="Machine ids that are never rented.")
    interruptible: bool = Field(default=False, description="Bid for capacity that can be taken away.")
    bid_usd: Decimal | None = Field(default=None, description="Bid an hour; none bids 1.25 times the lowest.")
    fallback: bool = Field(default=False, description="Rent on demand when no bid wins.")
    image: str = Field(description="Container image.")
    script: str = Field(description="What `sh -c` runs in it; no secrets.")
    port: int = Field(default=8000, description="Port that the server listens on, inside.")
    env: dict[str, str] = Field(default={}, description="Environment that is not secret.")
    api_key: SecretStr = Field(description="The key that requests must carry.")
    previous_key: SecretStr = Field(default=SecretStr(""), description="A key that counts too; empty for none.")
    hf_token: SecretStr | None = Field(default=None, description="Hugging Face token for gated models.")
    ca_pem: str = Field(default="", description="CA of the deployment; empty serves plain HTTP.")
    ca_key_pem: SecretStr = Field(default=SecretStr(""), description="The CA's key; it never leaves this machine.")
    server_name: str = Field(default="", description="The server's fixed name in its certificate.")
    attempts: int = Field(default=5, description="Machines that are tried before it gives up.")
    waste_usd: Decimal = Field(default=Decimal(2), description="Most that machines which fail may cost.")
    timeout_s: int = Field(default=1800, description="Seconds that one machine has to load and answer.")
    status: str = Field(default=RUNNING, description="Leave it: refresh says here what `up` repairs in place.")
    lost: str = Field(default="", description="Leave it: refresh says here why `up` has to replace it.")


class InstanceOutputs(Properties):
    """What was rented."""

    label: str = Field(description="project/stack/resource/generation-owner.")
    machine_id: int = Field(default=0, description="The machine, for excluding it.")
    gpu: str = Field(default="", description="What Vast.ai calls the GPU.")
    place: str = Field(default="", description="Where the host says it is.")
    interruptible: bool = Field(default=False, description="Whether it can be taken away.")
    hourly_usd: str = Field(default="", description="US dollars an hour as it is billed, GPU and disk.")
    end_date: str = Field(default="", description="When the rental ends, in UTC (ISO 8601).")
    address: str = Field(default="", description="host:port from outside.")
    endpoint: str = Field(default="", description="OpenAI base URL.")
    ca_pem: str = Field(default="", description="What clients trust.")
    run: str = Field(default="", description="Changes whenever the server was started anew.")
    status: str = Field(default="", description="What Vast.ai says of it.")
    since: str = Field(default="", description="When it was first seen in that status (ISO 8601).")
    offer: dict[str, Any] = Field(default={}, description="What was rented, with every rate that is billed.")
    tried: list[str] = Field(default=[], description="What was tried before, and why it was given up.")


_GUARDS = frozenset(
    {
        *("bid_usd", "max_hourly_usd", "download_gb", "upload_gb", "attempts", "waste_usd", "timeout_s", "status"),
        *("label", "generation", "fallback", "excluded_machines"),
    }
)
"""Inputs that change nothing about a running instance, or that can be changed in place."""


class Instance(NativeResource[InstanceInputs, InstanceOutputs]):
    """Lifecycle of one rented instance."""

    token: ClassVar[str] = "vllm-anywhere:vastai:Instance"
    doc: ClassVar[str] = "A vLLM server on a machine of the Vast.ai marketplace, found by constraints."
    inputs = InstanceInputs
    outputs = InstanceOutputs
    replace_on: ClassVar[frozenset[str]] = frozenset(InstanceInputs.model_fields) - _GUARDS

    def check(self, inputs: Mapping[str, Any]) -> list[Failure]:
        failures: list[Failure] = []
        if inputs.get("gpus") == []:
            failures.append(Failure("gpus", "at least one GPU, such as `RTX 4090`"))
        for name in ("min_capability", "cuda"):
            if name in inputs and not _is_release(inputs[name]):
                failures.append(Failure(name, "two numbers, such as 12.9"))
        if inputs.get("bid_usd") is not None and inputs.get("interruptible") is False:
            failures.append(Failure("bid_usd", "only with interruptible: without it the price is fixed"))
        return failures

    def settled(self, changed: frozenset[str]) -> frozenset[str]:
        machine = frozenset({"machine_id", "gpu", "place", "interruptible", "end_date"})
        if "status" in changed:
            return machine
        price = set[str]() if changed & {"bid_usd", "max_hourly_usd"} else {"offer", "hourly_usd"}
        return machine | {"address", "endpoint", "run"} | price

    def create(self, context: Context, inputs: InstanceInputs) -> Created[InstanceOutputs]:
        renter = _renter(context, inputs)
        rental = renter.rent()
        outputs = _outputs(rental.instance, inputs, None, context.now(), rental.tried)
        return Created(rental.instance.id, outputs, rental.problem)

    def read(
        self, context: Context, id: str, inputs: InstanceInputs | None, outputs: InstanceOutputs | None
    ) -> Found[InstanceInputs, InstanceOutputs] | None:
        vast = _vast(context)
        one = vast.get(id)
        if one is None:
            return None
        if inputs is None:
            return Found(_imported(one), _outputs(one, _imported(one), None, context.now()))
        now = _outputs(one, inputs, outputs, context.now())
        verdict = _verdict(vast, one, inputs, now, context.now())
        return Found(inputs.model_copy(update=_drift(one, _order(context, inputs), verdict)), now)

    def update(
        self, context: Context, id: str, outputs: InstanceOutputs, old: InstanceInputs, new: InstanceInputs
    ) -> Created[InstanceOutputs]:
        from providers.vastai.launch import bid_for
        from providers.vastai.sdk import Sdk

        renter = _renter(context, new)
        vast = renter.vast
        one = vast.get(id)
        if one is None:
            raise PlatformError(f"instance {id} is gone; `pulumi refresh`, then `pulumi up` rents another one")
        if one.label != new.label:
            Sdk(vast).label(id, new.label)
        if one.is_bid and (new.bid_usd != old.bid_usd or one.stopped):
            Sdk(vast).bid(id, bid_for(renter.order, one))
        if one.stopped:
            vast.start(id)
        one, verdict = renter.until_serving(one)
        done = _outputs(one, new, outputs, context.now())
        if verdict.do == "keep":
            return Created(id, done)
        ways = "`pulumi refresh`, then `pulumi up` replaces it; `pulumi destroy` ends it"
        return Created(id, done, f"instance {id}: {verdict.why}. It may cost money: {ways}")

    def delete(self, context: Context, id: str, outputs: InstanceOutputs) -> None:
        vast = _vast(context)
        ensure_gone(context, id, destroy=vast.destroy, exists=lambda wanted: vast.get(wanted) is not None)


def _vast(context: Context) -> Vast:
    # The HTTP client takes as long to import as the whole rest of the provider; preview does without it.
    from providers.vastai.client import connect

    return connect(context.clock, context.wait)


def _renter(context: Context, inputs: InstanceInputs) -> Renter:
    from providers.vastai.health import answers
    from providers.vastai.rent import Renter
    from providers.vastai.sdk import Sdk
    from providers.vastai.siblings import CLAIMS

    vast = _vast(context)
    return Renter(vast, _order(context, inputs), context, answers(inputs.ca_pem), Sdk(vast).log_tail, CLAIMS)


def _order(context: Context, inputs: InstanceInputs) -> Order:
    from providers.vastai.launch import Order, Tls
    from providers.vastai.offers import Traffic
    from providers.vastai.search import Wanted
    from serving.start import start_env
    from serving.tls import Certified

    wanted = Wanted(
        gpus=tuple(inputs.gpus),
        gpu_count=inputs.gpu_count,
        min_memory_gib=inputs.min_memory_gib,
        min_capability=_release(inputs.min_capability),
        cuda=_release(inputs.cuda),
        countries=tuple(inputs.countries),
        tier=inputs.tier,
        verified=inputs.verified,
        static_ip=inputs.static_ip,
        min_reliability=inputs.min_reliability,
        min_download_mbps=inputs.min_download_mbps,
        min_duration_h=inputs.min_duration_h,
        disk_gb=inputs.disk_gb,
        interruptible=inputs.interruptible,
        max_hourly_usd=inputs.max_hourly_usd,
        excluded=frozenset(inputs.excluded_machines),
    )
    token = inputs.hf_token.get_secret_value() if inputs.hf_token else None
    key, previous = inputs.api_key.get_secret_value(), inputs.previous_key.get_secret_value() or None
    authority = Certified(inputs.ca_pem, inputs.ca_key_pem.get_secret_value())
    return Order(
        label=inputs.label,
        wanted=wanted,
        traffic=Traffic(inputs.download_gb, inputs.upload_gb),
        image=inputs.image,
        script=inputs.script,
        port=inputs.port,
        env={**inputs.env, **start_env(api_key=key, previous_key=previous, hf_token=token)},
        tls=Tls(authority, inputs.server_name) if inputs.ca_pem else None,
        bid_usd=inputs.bid_usd,
        fallback=inputs.fallback,
        attempts=inputs.attempts,
        waste_usd=inputs.waste_usd,
        serve_s=context.timeout_s or inputs.timeout_s,
    )


def _verdict(vast: Vast, one: VastInstance, inputs: InstanceInputs, now: InstanceOutputs, at: datetime) -> Verdict:
    from providers.vastai.health import answers

    address = one.address(inputs.port)
    up = answers(inputs.ca_pem)(address) if address and one.actual_status == RUNNING else None
    credit = vast.credit() > 0 if one.stopped else None
    age = (at - datetime.fromisoformat(now.since)).total_seconds()
    return action_for(one.seen(inputs.port, at, age_s=age, load_limit_s=inputs.timeout_s, answers=up, credit=credit))


def _drift(one: VastInstance, order: Order, verdict: Verdict) -> dict[str, str]:
    """`status` and `lost` as refresh shows them: what `up` repairs in place, and what it replaces."""
    match verdict.do:
        case "keep":
            return {"status": RUNNING if one.label == order.label else "under another label", "lost": ""}
        case "replace" | "recreate":
            return {"status": one.actual_status or "provisioning", "lost": verdict.why}
        case "rebid":
            if _outbid_for_good(one, order):
                return {"status": "outbid", "lost": f"{verdict.why}; ${one.min_bid} an hour would win it back"}
            return {"status": "outbid", "lost": ""}
        case "surface":
            return {"status": verdict.why, "lost": ""}
        case "wait":
            return {"status": one.actual_status or "provisioning", "lost": ""}


def _outbid_for_good(one: VastInstance, order: Order) -> bool:
    """Whether the bid that the user allows can't win it back."""
    from providers.vastai.launch import bid_for

    return one.min_bid is not None and bid_for(order, one) < one.min_bid


def _outputs(
    one: VastInstance,
    inputs: InstanceInputs,
    before: InstanceOutputs | None,
    now: datetime,
    tried: tuple[str, ...] | None = None,
) -> InstanceOutputs:
    from serving.rented import as_output, dated_as

    address = one.address(inputs.port)
    hourly = one.hourly_usd(inputs.disk_gb)
    status = one.actual_status or "provisioning"
    same = before is not None and before.status == status and before.since
    scheme = "https" if inputs.ca_pem else "http"
    rented = one.offer("secure" if inputs.tier == "secure" else "community", now.date())
    return InstanceOutputs(
        label=one.label or inputs.label,
        machine_id=one.machine_id or 0,
        gpu=one.gpu_name or "",
        place=(one.geolocation or "").strip(", "),
        interruptible=bool(one.is_bid),
        hourly_usd="" if hourly is None else f"{hourly:.6f}",
        end_date=_date(one.end_date),
        address=address,
        endpoint=f"{scheme}://{address}/v1" if address else "",
        ca_pem=inputs.ca_pem,
        run=f"{one.id} {address} {_date(one.start_date)}",
        status=status,
        since=before.since if before is not None and same else now.isoformat(timespec="seconds"),
        offer=as_output(dated_as(before.offer if before else None, rented)),
        tried=list(tried if tried is not None else before.tried if before else ()),
    )


def _imported(one: VastInstance) -> InstanceInputs:
    """What can be told of an instance that was rented elsewhere. Its key can't be: it is not read back."""
    from providers.vastai.offers import gpu_called

    args = one.image_args or []
    return InstanceInputs(
        label=one.label,
        generation=generation_in(one.label),
        gpus=[gpu_called(one.gpu_name or "", one.gpu_ram) or one.gpu_name or ""],
        gpu_count=one.num_gpus or 1,
        cuda="12.4",
        disk_gb=int(one.disk_space or 0),
        interruptible=bool(one.is_bid),
        image=one.image_uuid or "",
        script=args[1] if len(args) > 1 else "",
        api_key=SecretStr(""),
        status="imported",
    )


def _date(seconds: Decimal | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(int(seconds), UTC).isoformat()


def _is_release(text: str) -> bool:
    major, _, minor = text.partition(".")
    return major.isdigit() and minor.isdigit()


def _release(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)


RESOURCES: tuple[NativeResource[Any, Any], ...] = (Instance(), *SERVERLESS)
