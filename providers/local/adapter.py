"""The spec on this machine: vLLM where there is an NVIDIA GPU and vLLM, else a small model on the CPU."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal

from pydantic import Field
from pydantic.alias_generators import to_camel

from providers.base import KEY, PREVIOUS_KEY, Ask, Declaration, Declared, Reason, Ref
from providers.local.pricing import Machine
from serving.offers import Offer, no_charge
from serving.spec import DeploymentSpec, Part
from serving.vllm import serve_args

STAND_IN = "SmolLM2-135M-Instruct"
STAND_IN_CONTEXT = 8192
"""The longest context that SmolLM2 was trained for (its config's max_position_embeddings)."""

STAND_IN_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""SmolLM2's ChatML. Its own default system prompt, which names the model, makes it answer plain questions in French."""


class LocalOptions(Part):
    """What only `local` has."""

    engine: Literal["auto", "llama", "vllm"] = Field(
        default="auto",
        description="`vllm` needs an NVIDIA GPU; `llama` is llama.cpp on the CPU; `auto` takes what works.",
    )
    gguf: str | None = Field(
        default=None, description="A GGUF file to serve with llama.cpp, instead of the stand-in model."
    )
    port: int = Field(default=0, ge=0, le=65535, description="Port on 127.0.0.1; 0 takes any free one.")
    parallel: int = Field(default=2, ge=1, le=64, description="Requests that llama.cpp answers at the same time.")


class LocalAdapter:
    """This machine as a platform."""

    options = LocalOptions

    def unsupported(self, ask: Ask) -> list[Reason]:
        machine, options = _machine(ask), _options(ask)
        reasons: list[Reason] = []
        if options.engine == "vllm" and not (machine.gpu and machine.vllm):
            missing = "an NVIDIA GPU" if not machine.gpu else "`vllm` on PATH"
            reasons.append(Reason("local.engine", f"`vllm` needs {missing}, which this machine lacks; `auto` works"))
        if _engine(ask) == "llama" and not (options.gguf or machine.stand_in):
            text = "the stand-in model is not installed; run `make up`, or name a GGUF file here"
            reasons.append(Reason("local.gguf", text))
        if options.port and ask.spec.scaling.min > 1:
            text = f"{ask.spec.scaling.min} servers can't listen on one port; 0 gives each a free one"
            reasons.append(Reason("local.port", text))
        return reasons

    def offers(self, ask: Ask) -> list[Offer]:
        machine = _machine(ask)
        vllm = _engine(ask) == "vllm"
        return [
            Offer(
                platform="local",
                kind="process",
                sku="vLLM" if vllm else "llama.cpp",
                gpu=(machine.gpu or "") if vllm else "",
                gpu_count=1 if vllm else 0,
                region="this machine",
                country="",
                tier="own",
                spot=False,
                rates=(no_charge("your own machine; its electricity is not counted"),),
            )
        ]

    def resources(self, ask: Ask, offer: Offer) -> Declared:
        server = self._vllm(ask) if _engine(ask) == "vllm" else self._llama(ask)
        return Declared(
            resources=(server,),
            server="server",
            endpoint=Ref("server", "endpoint"),
            run=Ref("server", "pid"),
            model=_model_name(ask),
            hardware=_hardware(ask),
            notes=tuple(_notes(ask)),
            each=("server",),
        )

    def _llama(self, ask: Ask) -> Declaration:
        spec, options = ask.spec, _options(ask)
        return _server(
            ask,
            engine="llama",
            model=_gguf(ask),
            aliases=[_model_name(ask)] if _model_name(ask) != spec.model.served_name else [],
            context_tokens=_context(ask),
            parallel=options.parallel,
            chat_template="" if options.gguf else STAND_IN_TEMPLATE,
        )

    def _vllm(self, ask: Ask) -> Declaration:
        spec = ask.spec
        args = serve_args(spec, half=_machine(ask).capability < 8.0)
        return _server(ask, engine="vllm", model=spec.model.name, context_tokens=spec.model.max_len, args=list(args))


def _server(ask: Ask, **inputs: object) -> Declaration:
    common = {
        "servedName": ask.spec.model.served_name,
        "port": _options(ask).port,
        "apiKey": KEY,
        "previousKey": PREVIOUS_KEY,
        "timeoutS": ask.spec.ready.timeout_s,
    }
    return Declaration(
        "server", "vllm-anywhere:local:Server", {**{to_camel(name): value for name, value in inputs.items()}, **common}
    )


def _options(ask: Ask) -> LocalOptions:
    return ask.options


def _machine(ask: Ask) -> Machine:
    return ask.market


def _engine(ask: Ask) -> Literal["llama", "vllm"]:
    options, machine = _options(ask), _machine(ask)
    if options.engine != "auto":
        return options.engine
    return "vllm" if machine.gpu and machine.vllm and not options.gguf else "llama"


def _gguf(ask: Ask) -> str:
    return _options(ask).gguf or _machine(ask).stand_in


def _context(ask: Ask) -> int:
    asked = ask.spec.model.max_len
    return asked if _options(ask).gguf else min(asked, STAND_IN_CONTEXT)


def _model_name(ask: Ask) -> str:
    """What the `model` output says, and what requests may ask for: never Qwen's name alone for another model."""
    served = ask.spec.model.served_name
    if _engine(ask) == "vllm":
        return served
    file = _options(ask).gguf
    return f"{served} (stand-in: {PurePath(file).stem if file else STAND_IN})"


def _hardware(ask: Ask) -> str:
    machine = _machine(ask)
    cores = f"{machine.cores} CPU cores, {machine.memory_gib} GiB"
    return f"this machine: {machine.gpu}, {cores}" if _engine(ask) == "vllm" else f"this machine: {cores}, no GPU used"


def _notes(ask: Ask) -> list[str]:
    return [*_stand_in_notes(ask), *_ignored(ask.spec)]


def _stand_in_notes(ask: Ask) -> list[str]:
    if _engine(ask) == "vllm":
        return []
    spec = ask.spec
    name = PurePath(_gguf(ask)).stem if _options(ask).gguf else f"{STAND_IN} (135M parameters)"
    notes = [
        f"{name} stands in for {spec.model.name}, under its served name. "
        "Neither its answers nor its speed say anything about that model."
    ]
    if _context(ask) < spec.model.max_len:
        notes.append(f"Its longest request is {_context(ask)} tokens, not {spec.model.max_len}.")
    return notes


def _ignored(spec: DeploymentSpec) -> list[str]:
    """Settings that have no meaning on one's own machine; they stay valid so that `provider` alone switches."""
    ignored: list[str] = []
    if spec.scaling.min == 0:
        ignored.append("scaling.min (nothing sleeps here)")
    if spec.scaling.max > max(1, spec.scaling.min):
        ignored.append("scaling.max (nothing is added under load)")
    if spec.hardware.spot:
        ignored.append("hardware.spot")
    if spec.hardware.gpus:
        ignored.append("hardware.gpus")
    return [f"Not used by local: {', '.join(ignored)}."] if ignored else []


ADAPTER = LocalAdapter()
