"""`vllm-anywhere:gateway:Proxy`: LiteLLM's proxy on this machine, in front of several stacks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, SecretStr

from providers.base import Interrupted, PlatformError
from providers.local.resources import ServerOutputs, outputs_of
from providers.native import Context, Created, Found, Labelled, NativeResource, Properties, generation_in
from serving.failures import explain
from serving.gateway_proxy import as_json

if TYPE_CHECKING:
    from providers.gateway.client import GatewayMachine

_POLL_S = 0.05
_KEYS = frozenset({"api_key", "previous_key"})
_OWN = frozenset({"label", "generation", "status", "timeout_s"})


class Behind(Properties):
    """One stack behind the gateway."""

    stack: str = Field(description="The stack.")
    provider: str = Field(description="Its platform.")
    model: str = Field(description="The model name that it serves.")
    endpoints: list[str] = Field(description="OpenAI base URLs of its servers.")
    price: str = Field(description="What it costs, by its outputs.")


class ProxyInputs(Labelled):
    """What is in front of what."""

    model: str = Field(description="The model name that clients ask for.")
    behind: list[Behind] = Field(description="The stacks, in the order in which they are asked.")
    api: str = Field(default="", description="The closed API, its model and its price; empty without one.")
    config: str = Field(description="The config of LiteLLM's proxy, JSON. Keys are named in it, never written.")
    rule: str = Field(description="What decides which requests go to the API, JSON.")
    ca_pem: str = Field(default="", description="The CAs of the servers behind it, PEM.")
    upstream_keys: SecretStr = Field(description="The keys that the config names: a JSON object, name -> key.")
    api_key: SecretStr = Field(description="The key that requests must carry.")
    previous_key: SecretStr = Field(default=SecretStr(""), description="A key that counts too; empty for none.")
    port: int = Field(default=0, description="Port on 127.0.0.1; 0 for any free one.")
    timeout_s: int = Field(default=900, description="Seconds until it must answer.")
    status: str = Field(
        default="running", description="Leave it: refresh says `stopped` here, and `up` starts it again."
    )


class ProxyOutputs(ServerOutputs):
    """The gateway as it is."""

    run: str = Field(description="Changes with every proxy that is started.")


class Proxy(NativeResource[ProxyInputs, ProxyOutputs]):
    """Lifecycle of a gateway. Everything but its port changes while it serves."""

    token: ClassVar[str] = "vllm-anywhere:gateway:Proxy"
    doc: ClassVar[str] = "LiteLLM's proxy on this machine: one OpenAI URL in front of several stacks."
    inputs = ProxyInputs
    outputs = ProxyOutputs
    replace_on: ClassVar[frozenset[str]] = frozenset({"port"})

    def create(self, context: Context, inputs: ProxyInputs) -> Created[ProxyOutputs]:
        machine = _machine()
        try:
            if machine.is_running(inputs.label):
                # What an interrupted create left.
                machine.stop(inputs.label, context.wait)
            return self._start(machine, context, inputs)
        except PlatformError:
            machine.give_up(inputs.label)
            raise

    def read(
        self, context: Context, id: str, inputs: ProxyInputs | None, outputs: ProxyOutputs | None
    ) -> Found[ProxyInputs, ProxyOutputs] | None:
        machine = _machine()
        want = machine.want(id)
        if want is None:
            return None
        if inputs is None:
            inputs = _inputs(id, want, machine.upstream_keys(id))
        now = _outputs(machine, id)
        return Found(inputs.model_copy(update={"status": now.status}), now)

    def update(
        self, context: Context, id: str, outputs: ProxyOutputs, old: ProxyInputs, new: ProxyInputs
    ) -> Created[ProxyOutputs]:
        machine = _machine()
        if not machine.is_running(id):
            return self._start(machine, context, new)
        before, failed = machine.state(id)
        machine.write_keys(id, new.api_key.get_secret_value(), new.previous_key.get_secret_value())
        machine.keep(id, _want(new), new.upstream_keys.get_secret_value())
        if _only_keys(old, new) and not failed:
            return Created(id, _outputs(machine, id))
        machine.change(id)
        begun = context.clock()
        while (now := machine.state(id))[0] <= before:
            waited = context.clock() - begun
            if not machine.is_running(id):
                return self._start(machine, context, new)
            if waited > (context.timeout_s or new.timeout_s):
                what = f"the new proxy does not answer after {waited:.0f} s; the one before still does"
                problem = explain(f"{what}. `pulumi up` tries again", machine.log_tail(id, 200))
                return Created(id, _outputs(machine, id), problem)
            context.wait(_POLL_S)
        problem = now[1] and explain(
            f"{now[1]}; the one before still answers. `pulumi up` tries again", machine.log_tail(id, 200)
        )
        return Created(id, _outputs(machine, id), problem)

    def delete(self, context: Context, id: str, outputs: ProxyOutputs) -> None:
        machine = _machine()
        if machine.is_running(id):
            machine.stop(id, context.wait)
        machine.forget(id)

    def _start(self, machine: GatewayMachine, context: Context, inputs: ProxyInputs) -> Created[ProxyOutputs]:
        label = inputs.label
        machine.keep(label, _want(inputs), inputs.upstream_keys.get_secret_value())
        machine.reset(label)
        started = machine.start(
            label, _want(inputs), inputs.api_key.get_secret_value(), inputs.previous_key.get_secret_value()
        )
        begun = context.clock()
        shown = 0.0
        try:
            while machine.state(label)[0] == 0 or machine.state(label)[1]:
                waited = context.clock() - begun
                if started.exited or waited > (context.timeout_s or inputs.timeout_s):
                    log = machine.log_tail(label, 200)
                    started.drop()
                    what = f"the gateway does not answer after {waited:.0f} s; nothing is running now"
                    raise PlatformError(explain(what, log))
                if waited > shown + 2:
                    shown = waited
                    context.progress(f"starting LiteLLM's proxy, {waited:.0f} s")
                context.wait(_POLL_S)
        except Interrupted:
            started.drop()
            raise Interrupted("cancelled; the gateway that was starting has been stopped") from None
        started.commit()
        return Created(label, _outputs(machine, label))


def _machine() -> GatewayMachine:
    # The HTTP client takes as long to import as the whole rest of the provider; preview does without it.
    from providers.gateway.client import GatewayMachine

    return GatewayMachine()


def _want(inputs: ProxyInputs) -> dict[str, Any]:
    told = inputs.model_dump(mode="json", exclude={*_OWN, *_KEYS, "upstream_keys"})
    return {**told, "engine": "litellm", "config": json.loads(inputs.config), "rule": json.loads(inputs.rule)}


def _inputs(id: str, want: Mapping[str, Any], upstream_keys: str) -> ProxyInputs:
    """What a gateway was made from, by its folder."""
    told = {name: value for name, value in want.items() if name != "engine"}
    texts = {name: as_json(want[name]) for name in ("config", "rule")}
    own = {"upstream_keys": upstream_keys, "label": id, "generation": generation_in(id)}
    return ProxyInputs.model_validate({**told, **texts, **own})


def _only_keys(old: ProxyInputs, new: ProxyInputs) -> bool:
    """Whether the keys of clients are what differs: the guard takes new ones while it serves.

    Where nothing differs, the engine tries again what has failed.
    """
    differing = {name for name in ProxyInputs.model_fields if getattr(old, name) != getattr(new, name)} - _OWN
    return bool(differing) and differing <= _KEYS


def _outputs(machine: GatewayMachine, label: str) -> ProxyOutputs:
    last = machine.last_run(label)
    run = f"{last.pid if last else 0}.{machine.state(label)[0]}"
    return ProxyOutputs(**outputs_of(machine, label).model_dump(), run=run)


RESOURCES = (Proxy(),)
