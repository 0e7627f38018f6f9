"""`vllm-anywhere:local:Server`: a detached server process on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, SecretStr

from providers.base import Interrupted, PlatformError
from providers.native import Context, Created, Failure, Found, Labelled, NativeResource, Properties, generation_in
from serving.failures import explain

if TYPE_CHECKING:
    from providers.local.client import LocalMachine, Running

_POLL_S = 0.05
_QUIET_S = 1.0
_DRAIN_S = 15.0
_KEYS = ("api_key", "previous_key")


class ServerInputs(Labelled):
    """What to serve, and how."""

    engine: str = Field(description="`llama` (llama.cpp on the CPU) or `vllm`.")
    model: str = Field(description="Path of the GGUF file, or the Hugging Face repository for vLLM.")
    served_name: str = Field(description="The name that requests ask for.")
    aliases: list[str] = Field(default=[], description="Other names that it answers to.")
    context_tokens: int = Field(description="Longest request in tokens.")
    parallel: int = Field(default=1, description="Requests answered at the same time.")
    chat_template: str = Field(default="", description="Jinja chat template; the model's own if empty.")
    args: list[str] = Field(default=[], description="Arguments of `vllm serve`, for vLLM.")
    port: int = Field(default=0, description="Port on 127.0.0.1; 0 for any free one.")
    api_key: SecretStr = Field(description="The key that requests must carry.")
    previous_key: SecretStr = Field(default=SecretStr(""), description="A key that counts too; empty for none.")
    timeout_s: int = Field(default=900, description="Seconds until it must be healthy.")
    status: str = Field(
        default="running", description="Leave it: refresh says `stopped` here, and `up` starts it again."
    )


class ServerOutputs(Properties):
    """The process as it is."""

    label: str = Field(description="project/stack/resource/generation-owner; also the resource's id.")
    endpoint: str = Field(description="OpenAI base URL.")
    port: int = Field(description="Port on 127.0.0.1.")
    pid: int = Field(description="Process id; 0 when it is stopped.")
    status: str = Field(description="`running` or `stopped`.")
    log_file: str = Field(description="Where it writes what it does.")


class Server(NativeResource[ServerInputs, ServerOutputs]):
    """Lifecycle of one server process."""

    token: ClassVar[str] = "vllm-anywhere:local:Server"
    doc: ClassVar[str] = "An OpenAI-compatible model server on this machine."
    inputs = ServerInputs
    outputs = ServerOutputs
    replace_on: ClassVar[frozenset[str]] = frozenset(
        {
            "engine",
            "model",
            "served_name",
            "aliases",
            "context_tokens",
            "parallel",
            "chat_template",
            "args",
            "port",
            "api_key",
            "previous_key",
        }
    )

    def check(self, inputs: Mapping[str, Any]) -> list[Failure]:
        failures: list[Failure] = []
        if inputs.get("engine") not in ("llama", "vllm", None):
            failures.append(Failure("engine", "`llama` or `vllm`"))
        if not 0 <= inputs.get("port", 0) <= 65535:
            failures.append(Failure("port", "0 (any free port) to 65535"))
        return failures

    def satisfied(self, changed: frozenset[str], new: Mapping[str, Any], outputs: Mapping[str, Any]) -> frozenset[str]:
        # vLLM's guard takes new keys while it serves; llama.cpp knows those that it was started with.
        return changed & frozenset(_KEYS) if new.get("engine") == "vllm" else frozenset()

    def delete_before_replace(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        # A port that the user has fixed can't be listened on twice.
        return bool(old.get("port")) and old.get("port") == new.get("port")

    def create(self, context: Context, inputs: ServerInputs) -> Created[ServerOutputs]:
        machine = _machine()
        try:
            if machine.is_running(inputs.label):
                if machine.want(inputs.label) == {**_want(inputs), **_keys(inputs)}:
                    return self._until_healthy(machine, context, inputs)
                machine.stop(inputs.label, context.wait)
            return self._start(machine, context, inputs)
        except PlatformError:
            machine.give_up(inputs.label)
            raise

    def read(
        self, context: Context, id: str, inputs: ServerInputs | None, outputs: ServerOutputs | None
    ) -> Found[ServerInputs, ServerOutputs] | None:
        machine = _machine()
        want = machine.want(id)
        if want is None:
            return None
        if inputs is None:
            inputs = ServerInputs(**want, label=id, generation=generation_in(id))
        outputs_now = outputs_of(machine, id)
        return Found(inputs.model_copy(update={"status": outputs_now.status}), outputs_now)

    def update(
        self, context: Context, id: str, outputs: ServerOutputs, old: ServerInputs, new: ServerInputs
    ) -> Created[ServerOutputs]:
        machine = _machine()
        if machine.is_running(id):
            machine.write_keys(id, *_keys(new).values())
            return self._until_healthy(machine, context, new)
        return self._start(machine, context, new)

    def delete(self, context: Context, id: str, outputs: ServerOutputs) -> None:
        machine = _machine()
        if (running := machine.running(id)) is not None:
            self._drain(machine, context, id, running)
        if machine.is_running(id):
            machine.stop(id, context.wait)
        machine.forget(id)

    def _start(self, machine: LocalMachine, context: Context, inputs: ServerInputs) -> Created[ServerOutputs]:
        started = machine.start(inputs.label, _want(inputs), *_keys(inputs).values())
        begun = context.clock()
        shown = 0
        try:
            while (running := machine.running(inputs.label)) is None or not machine.healthy(running.port):
                waited = context.clock() - begun
                if started.exited:
                    what = f"the server stopped while it started, after {waited:.0f} s; nothing is running now"
                    raise PlatformError(explain(what, machine.log_tail(inputs.label, 200)))
                if running is not None and waited > _limit(context, inputs):
                    started.commit()
                    return self._not_healthy(machine, inputs, running, waited)
                if waited > shown + 2:
                    shown = int(waited)
                    last = next(iter(machine.log_tail(inputs.label, 1)), "")
                    context.progress(f"loading the model, {waited:.0f} s: {last[:80]}")
                context.wait(_POLL_S)
        except Interrupted:
            started.drop()
            raise Interrupted("cancelled; the server that was starting has been stopped") from None
        started.commit()
        return Created(inputs.label, outputs_of(machine, inputs.label))

    def _until_healthy(self, machine: LocalMachine, context: Context, inputs: ServerInputs) -> Created[ServerOutputs]:
        """Wait for a server that already runs."""
        begun = context.clock()
        while (running := machine.running(inputs.label)) is None or not machine.healthy(running.port):
            if not machine.is_running(inputs.label):
                return self._start(machine, context, inputs)
            if running is not None and context.clock() - begun > _limit(context, inputs):
                return self._not_healthy(machine, inputs, running, context.clock() - begun)
            context.wait(_POLL_S)
        return Created(inputs.label, outputs_of(machine, inputs.label))

    def _not_healthy(
        self, machine: LocalMachine, inputs: ServerInputs, running: Running, waited: float
    ) -> Created[ServerOutputs]:
        what = (
            f"the server runs (pid {running.pid}) but is not healthy after {waited:.0f} s. It costs nothing; "
            "`pulumi up` waits again, `pulumi destroy` ends it"
        )
        problem = explain(what, machine.log_tail(inputs.label, 200))
        return Created(inputs.label, outputs_of(machine, inputs.label), problem)

    def _drain(self, machine: LocalMachine, context: Context, label: str, running: Running) -> None:
        """Wait until clients have moved on: nothing in flight and no token served for a while."""
        key = (machine.want(label) or {}).get("api_key", "")
        begun = quiet_since = context.clock()
        before = machine.activity(running.port, key)
        while before is not None and context.clock() - begun < _DRAIN_S:
            context.wait(_QUIET_S / 5)
            now = machine.activity(running.port, key)
            if now is None:
                return
            if now[0] or now[1] != before[1]:
                quiet_since = context.clock()
            elif context.clock() - quiet_since >= _QUIET_S:
                return
            before = now


def _machine() -> LocalMachine:
    # The HTTP client takes as long to import as the whole rest of the provider; preview does without it.
    from providers.local.client import LocalMachine

    return LocalMachine()


def _limit(context: Context, inputs: ServerInputs) -> float:
    return context.timeout_s or inputs.timeout_s


def _want(inputs: ServerInputs) -> dict[str, Any]:
    return inputs.model_dump(exclude={"label", "generation", "status", *_KEYS})


def _keys(inputs: ServerInputs) -> dict[str, str]:
    key, previous = inputs.api_key.get_secret_value(), inputs.previous_key.get_secret_value()
    return dict(zip(_KEYS, (key, previous or key), strict=True))


def outputs_of(machine: LocalMachine, label: str) -> ServerOutputs:
    """The process of a label as it is."""
    running, last = machine.is_running(label), machine.last_run(label)
    port = last.port if last else 0
    return ServerOutputs(
        label=label,
        endpoint=f"http://127.0.0.1:{port}/v1",
        port=port,
        pid=last.pid if last and running else 0,
        status="running" if running else "stopped",
        log_file=str(machine.folder(label) / "server.log"),
    )


RESOURCES = (Server(),)
