"""`vllm-anywhere:lambda:Instance`: which machines will do in, the one that was rented out."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, SecretStr

from providers.base import PlatformError
from providers.native import Context, Created, Failure, Found, Labelled, NativeResource, Properties, generation_in

if TYPE_CHECKING:
    from providers.lambda_cloud.client import Lambda, LambdaInstance
    from providers.lambda_cloud.rent import Order

LABEL_LIMIT = 128
"""Characters of a tag's value, which holds the label."""
PORT = 8000


class InstanceInputs(Labelled):
    """What will do, what it may cost, and what it runs."""

    types: list[str] = Field(description="Instance types that will do, best first.")
    regions: list[str] = Field(description="Regions that will do, best first.")
    max_hourly_usd: Decimal | None = Field(default=None, description="Nothing dearer is ever rented.")
    ssh_key: str = Field(default="", description="SSH key of the account to put on it; empty for one that nobody has.")
    image: str = Field(description="Container image.")
    script: str = Field(description="What `sh` runs in it; no secrets.")
    api_key: SecretStr = Field(description="The key that requests must carry.")
    previous_key: SecretStr = Field(default=SecretStr(""), description="A key that counts too; empty for none.")
    hf_token: SecretStr | None = Field(default=None, description="Hugging Face token for gated models.")
    ca_pem: str = Field(description="CA of the deployment.")
    ca_key_pem: SecretStr = Field(description="The CA's key; it never leaves this machine.")
    server_name: str = Field(description="The server's fixed name in its certificate.")
    timeout_s: int = Field(default=1800, description="Seconds until it has booted and taken its secrets.")
    status: str = Field(default="active", description="Leave it: refresh says here what `up` repairs in place.")
    lost: str = Field(default="", description="Leave it: refresh says here why `up` has to replace it.")


class InstanceOutputs(Properties):
    """What was rented."""

    label: str = Field(description="project/stack/resource/generation-owner.")
    type: str = Field(description="Instance type.")
    region: str = Field(description="Region.")
    hourly_usd: str = Field(description="US dollars an hour as it is billed.")
    offer: dict[str, Any] = Field(default={}, description="What was rented, with the rate that is billed.")
    ip: str = Field(default="", description="Public address.")
    endpoint: str = Field(default="", description="OpenAI base URL.")
    run: str = Field(default="", description="Changes whenever the server was started anew.")
    status: str = Field(default="", description="What Lambda says of it.")


class Instance(NativeResource[InstanceInputs, InstanceOutputs]):
    """Lifecycle of one rented instance."""

    token: ClassVar[str] = "vllm-anywhere:lambda:Instance"
    doc: ClassVar[str] = "A vLLM server on an on-demand instance of Lambda Cloud."
    inputs = InstanceInputs
    outputs = InstanceOutputs
    replace_on: ClassVar[frozenset[str]] = frozenset(
        {"types", "regions", "ssh_key", "image", "script", "hf_token", "ca_pem", "server_name", "lost"}
    )

    def check(self, inputs: Mapping[str, Any]) -> list[Failure]:
        failures = [Failure(name, "at least one") for name in ("types", "regions") if inputs.get(name) == []]
        if len(inputs.get("label", "")) > LABEL_LIMIT:
            reason = f"Lambda's tags hold {LABEL_LIMIT} characters: a shorter name of project or stack"
            failures.append(Failure("label", reason))
        return failures

    def satisfied(self, changed: frozenset[str], new: Mapping[str, Any], outputs: Mapping[str, Any]) -> frozenset[str]:
        met = {"types": outputs.get("type") in new["types"], "regions": outputs.get("region") in new["regions"]}
        return frozenset(name for name in changed & met.keys() if met[name])

    def settled(self, changed: frozenset[str]) -> frozenset[str]:
        return frozenset({"type", "region", "offer"})

    def create(self, context: Context, inputs: InstanceInputs) -> Created[InstanceOutputs]:
        return self.create_in(_cloud(context), context, inputs)

    def create_in(self, cloud: Lambda, context: Context, inputs: InstanceInputs) -> Created[InstanceOutputs]:
        """`create`, in a given cloud."""
        from providers.lambda_cloud.rent import rent

        one, problem = rent(cloud, context, _order(context, inputs))
        return Created(one.id, _outputs(one, context), problem)

    def read(
        self, context: Context, id: str, inputs: InstanceInputs | None, outputs: InstanceOutputs | None
    ) -> Found[InstanceInputs, InstanceOutputs] | None:
        one = _cloud(context).get(id)
        if one is None or one.status == "terminating":
            return None
        lost = "it is unhealthy" if one.status == "unhealthy" else ""
        inputs = inputs or _imported(one)
        return Found(inputs.model_copy(update={"lost": lost, "status": one.status}), _outputs(one, context, outputs))

    def update(
        self, context: Context, id: str, outputs: InstanceOutputs, old: InstanceInputs, new: InstanceInputs
    ) -> Created[InstanceOutputs]:
        from providers.lambda_cloud.rent import furnish

        cloud = _cloud(context)
        one = cloud.get(id)
        if one is None:
            raise PlatformError(f"instance {id} is gone; `pulumi refresh`, then `pulumi up` rents another one")
        one, problem = furnish(cloud, context, _order(context, new), one)
        return Created(id, _outputs(one, context, outputs), problem)

    def delete(self, context: Context, id: str, outputs: InstanceOutputs) -> None:
        self.delete_in(_cloud(context), context, id, outputs.label)

    def delete_in(self, cloud: Lambda, context: Context, id: str, label: str) -> None:
        """`delete`, in a given cloud."""
        from providers.lambda_cloud.rent import give_back

        give_back(cloud, context, id, label)


def _cloud(context: Context) -> Lambda:
    # The HTTP client takes as long to import as the whole rest of the provider; preview does without it.
    from providers.lambda_cloud.client import connect

    return connect(wait=context.wait)


def _order(context: Context, inputs: InstanceInputs) -> Order:
    from providers.lambda_cloud.rent import Order
    from serving.tls import Certified

    return Order(
        label=inputs.label,
        types=tuple(inputs.types),
        regions=tuple(inputs.regions),
        max_hourly_usd=inputs.max_hourly_usd,
        ssh_key=inputs.ssh_key,
        image=inputs.image,
        script=inputs.script,
        api_key=inputs.api_key.get_secret_value(),
        previous_key=inputs.previous_key.get_secret_value(),
        hf_token=inputs.hf_token.get_secret_value() if inputs.hf_token else None,
        authority=Certified(inputs.ca_pem, inputs.ca_key_pem.get_secret_value()),
        server_name=inputs.server_name,
        timeout_s=context.timeout_s or inputs.timeout_s,
    )


def _outputs(one: LambdaInstance, context: Context, before: InstanceOutputs | None = None) -> InstanceOutputs:
    from providers.lambda_cloud.pricing import rented
    from serving.rented import as_output, dated_as

    offer = rented(one, context.now().date())
    return InstanceOutputs(
        label=one.label,
        type=one.instance_type.name,
        region=one.region.name,
        hourly_usd=str(one.instance_type.hourly_usd),
        offer=as_output(dated_as(before.offer if before else None, offer)) if offer else {},
        ip=one.ip or "",
        endpoint=f"https://{one.ip}:{PORT}/v1" if one.ip else "",
        run=f"{one.id} {one.ip or ''}",
        status=one.status,
    )


def _imported(one: LambdaInstance) -> InstanceInputs:
    """What can be told of an instance that was rented elsewhere. Its key can't be, so the next `up` replaces it."""
    return InstanceInputs(
        label=one.label,
        generation=generation_in(one.label),
        types=[one.instance_type.name],
        regions=[one.region.name],
        image="",
        script="",
        api_key=SecretStr(""),
        ca_pem="",
        ca_key_pem=SecretStr(""),
        server_name="",
    )


RESOURCES: tuple[NativeResource[Any, Any], ...] = (Instance(),)
