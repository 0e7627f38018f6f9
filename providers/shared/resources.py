"""Resources that every deployment has: the API key, and the gate that opens when the model has answered."""

from __future__ import annotations

import secrets
from typing import Any, ClassVar

from pydantic import Field, SecretStr

from providers import base
from providers.native import Context, Created, Found, NativeResource, Properties
from providers.shared.certificate import Certificate
from serving import NAMESPACE
from serving.failures import explain


class ApiKeyInputs(Properties):
    """When to make a new key."""

    rotation: str = Field(default="1", description="Any text; a new value makes a new key.")
    own: SecretStr | None = Field(default=None, description="A key to use instead of a random one.")
    keep_previous: bool = Field(default=True, description="Whether the key before goes on counting beside the new one.")


class ApiKeyOutputs(Properties):
    """The key."""

    rotation: str = Field(description="The rotation that made this key.")
    value: SecretStr = Field(description="What clients send as bearer token.")
    previous: SecretStr = Field(
        default=SecretStr(""),
        description="The key before, which servers take too; the same as `value` where none counts beside it.",
    )


class ApiKey(NativeResource[ApiKeyInputs, ApiKeyOutputs]):
    """A random key, kept as a secret in state. 256 bits, URL-safe.

    A new one does not end the one before it: servers take both until the next rotation, or until `keep_previous` is
    off, so that clients change over when it suits them.
    """

    token: ClassVar[str] = f"{NAMESPACE}:index:ApiKey"
    doc: ClassVar[str] = "A random API key."
    inputs = ApiKeyInputs
    outputs = ApiKeyOutputs

    def create(self, context: Context, inputs: ApiKeyInputs) -> Created[ApiKeyOutputs]:
        value = _made(inputs)
        return Created("api-key", ApiKeyOutputs(rotation=inputs.rotation, value=value, previous=value))

    def read(
        self, context: Context, id: str, inputs: ApiKeyInputs | None, outputs: ApiKeyOutputs | None
    ) -> Found[ApiKeyInputs, ApiKeyOutputs] | None:
        if inputs is None or outputs is None:
            raise base.PlatformError(
                "a key can't be imported, since its id would be shown; keep one that is in use with "
                f"`pulumi config set --secret {NAMESPACE}:own_api_key`"
            )
        return Found(inputs, outputs)

    def update(
        self, context: Context, id: str, outputs: ApiKeyOutputs, old: ApiKeyInputs, new: ApiKeyInputs
    ) -> Created[ApiKeyOutputs]:
        same = (old.rotation, old.own) == (new.rotation, new.own)
        value = outputs.value if same else _made(new)
        # A rotation that comes to the same key (one of the user's own) ends nothing.
        before = outputs.previous if value == outputs.value else outputs.value
        previous = before if new.keep_previous and before.get_secret_value() else value
        return Created(id, ApiKeyOutputs(rotation=new.rotation, value=value, previous=previous))

    def delete(self, context: Context, id: str, outputs: ApiKeyOutputs) -> None:
        return None


def _made(inputs: ApiKeyInputs) -> SecretStr:
    return inputs.own or SecretStr(f"sk-{secrets.token_urlsafe(32)}")


_PATIENCE_S = 10
"""Seconds after which the platform is asked, too, what a server is waiting for."""


class ReadyInputs(Properties):
    """What has to answer."""

    endpoint: str = Field(description="OpenAI base URL, ending in /v1: the very one that users get.")
    api_key: SecretStr = Field(description="The key that users get.")
    model: str = Field(description="The model name that requests use.")
    platform: str = Field(description="Where it runs, for reading its logs.")
    server_id: str = Field(description="The id of the server's resource, for reading its logs.")
    run: str = Field(default="", description="Changes when the server is started anew; then it has to answer anew.")
    timeout_s: int = Field(default=900, description="Seconds until the first completed answer.")
    ca_pem: str = Field(default="", description="The CA that clients trust besides the public ones, as PEM.")
    key_delay_s: int = Field(
        default=0, description="Seconds that new keys may take to reach the server; until then refusals aren't final."
    )
    wake: bool = Field(default=True, description="False accepts a server that is configured but asleep, unasked.")


class ReadyOutputs(Properties):
    """How the first answer came."""

    endpoint: str = Field(description="The endpoint that answered.")
    model: str = Field(description="The model that answered.")
    time_to_ready_s: float | None = Field(
        default=None,
        description="Seconds from the first question to the first complete answer; absent when none was asked.",
    )
    first_token_s: float | None = Field(
        default=None, description="Seconds from that request to its first token (TTFT)."
    )
    answered_at: str | None = Field(default=None, description="When it answered, in UTC (ISO 8601).")


class Ready(NativeResource[ReadyInputs, ReadyOutputs]):
    """Passes once the model is listed and one streamed completion has come back.

    Pulumi deletes what was replaced last, so when this fails the old deployment goes on serving.
    """

    token: ClassVar[str] = f"{NAMESPACE}:index:Ready"
    doc: ClassVar[str] = "Waits until the model has answered a real request."
    inputs = ReadyInputs
    outputs = ReadyOutputs

    def create(self, context: Context, inputs: ReadyInputs) -> Created[ReadyOutputs]:
        return Created("ready", self._wait(context, inputs))

    def read(
        self, context: Context, id: str, inputs: ReadyInputs | None, outputs: ReadyOutputs | None
    ) -> Found[ReadyInputs, ReadyOutputs] | None:
        # What it recorded is history; whether the server lives is the server resource's to say.
        return Found(inputs, outputs) if inputs and outputs else None

    def update(
        self, context: Context, id: str, outputs: ReadyOutputs, old: ReadyInputs, new: ReadyInputs
    ) -> Created[ReadyOutputs]:
        return Created(id, self._wait(context, new))

    def delete(self, context: Context, id: str, outputs: ReadyOutputs) -> None:
        return None

    def _wait(self, context: Context, inputs: ReadyInputs) -> ReadyOutputs:
        if not inputs.wake:
            context.progress("asleep, and left so (ready.wake is false): whether it answers was not asked")
            return ReadyOutputs(
                endpoint=inputs.endpoint, model=inputs.model, time_to_ready_s=None, first_token_s=None, answered_at=None
            )
        # The HTTP client takes as long to import as the whole rest of the provider; preview does without it.
        from providers.shared.endpoint import Answer, Endpoint, NotYet

        endpoint = Endpoint(inputs.endpoint, inputs.api_key.get_secret_value(), inputs.ca_pem)
        waiting_on = base.load_waiting(inputs.platform)
        begun = context.clock()
        limit = context.timeout_s or inputs.timeout_s
        pause = 0.05
        shown = 0.0
        while True:
            answer = endpoint.ask(inputs.model, context.clock)
            waited = context.clock() - begun
            match answer:
                case Answer():
                    return ReadyOutputs(
                        endpoint=inputs.endpoint,
                        model=inputs.model,
                        time_to_ready_s=round(waited, 3),
                        first_token_s=round(answer.first_token_s, 3),
                        answered_at=context.now().isoformat(timespec="seconds"),
                    )
                case NotYet(final=True) if waited >= inputs.key_delay_s:
                    raise base.NotReady(self._failure(inputs, answer.reason, waited))
                case NotYet() if waited >= limit:
                    raise base.NotReady(self._failure(inputs, answer.reason, waited))
                case NotYet() if waited - shown >= 2:
                    shown = waited
                    said = waiting_on(inputs.server_id) if waited >= _PATIENCE_S else ""
                    why = f"{answer.reason}; {said}" if said else answer.reason
                    context.progress(f"waiting for the first answer, {waited:.0f} s of {limit:.0f}: {why}")
                case NotYet():
                    pass
            context.wait(min(pause, limit - waited))
            pause = min(pause * 1.5, 5.0)

    def _failure(self, inputs: ReadyInputs, reason: str, waited: float) -> str:
        what = (
            f"the model has not answered at {inputs.endpoint} after {waited:.0f} s: {reason}\n"
            "What was created is kept and may be billed; what served before still serves. "
            "`pulumi up` tries again, `pulumi destroy` removes everything."
        )
        try:
            log = base.load_logs(inputs.platform)(inputs.server_id, 200)
        except (base.PlatformError, OSError) as error:
            return f"{what}\nIts log can't be read: {error}"
        return explain(what, log)


RESOURCES: tuple[NativeResource[Any, Any], ...] = (ApiKey(), Ready(), Certificate())
