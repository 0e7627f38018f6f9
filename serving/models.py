"""What the memory of a model depends on: a catalogue, and a reader of Hugging Face's `config.json` for the rest.

Only decoders with attention are known: dense or mixture of experts, grouped-query or multi-head latent attention.
Parameters, weight bytes and the KV cache's bytes follow from the shape by arithmetic; nothing is looked up.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, cast

from serving.tables import data_text

Dtype = Literal["bfloat16", "float16", "float32"]

DTYPE_BYTES: Mapping[str, int] = {"bfloat16": 2, "float16": 2, "half": 2, "float32": 4}

WINDOW_CAVEAT = "sliding-window layers are counted as full attention, so the real cache holds more"

VOCAB_PADDING = 64
"""vLLM pads the vocabulary to a multiple of this (DEFAULT_VOCAB_PADDING_SIZE)."""


class UnknownModel(ValueError):
    """The catalogue has no such repository. `suggestions` are the nearest names; it may be empty."""

    def __init__(self, name: str, suggestions: tuple[str, ...]) -> None:
        self.name, self.suggestions = name, suggestions
        hint = f" Did you mean {' or '.join(f'`{s}`' for s in suggestions)}?" if suggestions else ""
        super().__init__(f"`{name}` is not in the model catalogue, so its memory is not known.{hint}")


class UnsupportedModel(ValueError):
    """The config is not of a decoder whose memory can be told, and why."""


@dataclass(frozen=True)
class Model:
    """The shape of one repository's weights.

    Attributes:
        name: Hugging Face repository.
        architecture: first entry of `architectures`; it decides which model runner vLLM takes.
        ffn: width of the dense MLP; `expert_ffn` that of one expert.
        kv_lora_rank: above 0, multi-head latent attention; the cache then holds this and `rope_dim` per layer.
        norms: RMS norms of `hidden` width in a layer.
        max_positions: longest context the weights know (`max_position_embeddings`).
        quantization: `quant_method` of the weights, "" if none.
        bits, group: of one quantised weight, and how many share a scale (0: one block of 128 x 128).
        of: the repository without quantisation, where this one is a quantised copy.
        parameters: as published; None when nobody published it.
        caveats: why an estimate is rougher than usual for this model.
    """

    name: str
    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied: bool
    max_positions: int
    dtype: Dtype = "bfloat16"
    qk_norm: bool = False
    qkv_bias: bool = False
    norms: int = 2
    experts: int = 0
    experts_per_token: int = 0
    expert_ffn: int = 0
    shared_ffn: int = 0
    dense_layers: int = 0
    kv_lora_rank: int = 0
    q_lora_rank: int = 0
    rope_dim: int = 0
    v_head_dim: int = 0
    window: int = 0
    quantization: str = ""
    bits: float = 16
    group: int = 0
    of: str = ""
    parameters: int | None = field(default=None, compare=False)
    caveats: tuple[str, ...] = ()

    @property
    def is_moe(self) -> bool:
        return self.experts > 0

    def count_parameters(self) -> int:
        """Weights and biases, the tied embedding once."""
        dense, moe = self.dense_layers or (0 if self.is_moe else self.layers), 0
        if self.is_moe:
            moe = self.layers - dense
        mlp = dense * 3 * self.ffn + moe * (self.experts * (3 * self.expert_ffn + 1) + 3 * self.shared_ffn)
        norms = (self.layers * self.norms + 1) * self.hidden
        norms += self.layers * 2 * self.head_dim if self.qk_norm else 0
        bias = self.layers * (self.heads + 2 * self.kv_heads) * self.head_dim if self.qkv_bias else 0
        embedding = self.vocab * self.hidden * (1 if self.tied else 2)
        return self.layers * self.attention_weights() + mlp * self.hidden + norms + bias + embedding

    def attention_weights(self) -> int:
        """Weights of one layer's attention projections."""
        if not self.kv_lora_rank:
            return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        query = self.q_lora_rank * (self.hidden + self.heads * self.head_dim) or (
            self.hidden * self.heads * self.head_dim
        )
        down = self.hidden * (self.kv_lora_rank + self.rope_dim)
        up = self.kv_lora_rank * self.heads * (self.head_dim - self.rope_dim + self.v_head_dim)
        return query + down + up + self.heads * self.v_head_dim * self.hidden

    def linear_bits(self) -> float:
        """Bits of one linear weight with its share of scales and zero points."""
        match self.quantization:
            case "":
                return 8 * DTYPE_BYTES[self.dtype]
            case "awq" | "gptq":
                return self.bits + (16 + self.bits) / (self.group or 128)
            case "modelopt" | "nvfp4":
                return self.bits + (8 / self.group if self.group else 0)
            case "bitsandbytes":
                return self.bits + (8 / 64 + 32 / (64 * 256) if self.bits == 4 else 0)
            case _:
                return self.bits + (16 / self.group if self.group else 32 / 128**2)

    def tensors(self, tensor_parallel: int = 1) -> Iterator[tuple[int, int]]:
        """(count, bytes) of the tensors one GPU holds, as vLLM fuses and shards them; small norms are left out."""
        tp, dense_bytes = tensor_parallel, DTYPE_BYTES[self.dtype]
        linear = self.linear_bits() / 8
        kv = max(1, self.kv_heads // tp)
        moe_layers = self.layers - self.dense_layers if self.is_moe else 0
        if self.kv_lora_rank:
            yield self.layers, round(self.attention_weights() * linear / tp)
        else:
            yield self.layers, round((self.heads // tp + 2 * kv) * self.head_dim * self.hidden * linear)
            yield self.layers, round(self.heads // tp * self.head_dim * self.hidden * linear)
        for count, width in ((self.layers - moe_layers, self.ffn), (moe_layers, self.shared_ffn)):
            if count and width:
                yield count, round(2 * width * self.hidden * linear / tp)
                yield count, round(width * self.hidden * linear / tp)
        if moe_layers:
            yield moe_layers, round(self.experts * 2 * self.expert_ffn * self.hidden * linear / tp)
            yield moe_layers, round(self.experts * self.expert_ffn * self.hidden * linear / tp)
            yield moe_layers, self.experts * self.hidden * dense_bytes
        yield 1 if self.tied else 2, -(-self.padded_vocab() // tp) * self.hidden * dense_bytes
        rotary = self.rope_dim or self.head_dim
        yield 1, self.max_positions * rotary * dense_bytes

    def padded_vocab(self) -> int:
        return -(-self.vocab // VOCAB_PADDING) * VOCAB_PADDING

    def kv_bytes_per_token(self, element_bytes: int, tensor_parallel: int = 1) -> int:
        """Bytes that one token takes in one GPU's KV cache."""
        if self.kv_lora_rank:
            return self.layers * (self.kv_lora_rank + self.rope_dim) * element_bytes
        return 2 * self.layers * max(1, self.kv_heads // tensor_parallel) * self.head_dim * element_bytes


def model(name: str) -> Model:
    """The catalogue's model of that repository name; letter case does not matter.

    Raises:
        UnknownModel: with suggestions.
    """
    found = _by_lower_name().get(name.lower())
    if found is None:
        lower = {n.rsplit("/", 1)[-1].lower(): n for n in _catalogue()}
        near = difflib.get_close_matches(name.rsplit("/", 1)[-1].lower(), lower, n=3, cutoff=0.6)
        raise UnknownModel(name, tuple(lower[n] for n in near))
    return found


def all_models() -> tuple[Model, ...]:
    """Every model of the catalogue."""
    return tuple(_catalogue().values())


def quantized_copies(of: Model) -> tuple[Model, ...]:
    """The catalogue's quantised copies of a model, smallest weights first."""
    base = of.of or of.name
    copies = [m for m in all_models() if m.of == base and m.name != of.name]
    return tuple(sorted(copies, key=Model.linear_bits))


def parse_config(name: str, config: Mapping[str, Any]) -> Model:
    """Hugging Face `config.json` -> Model.

    Raises:
        UnsupportedModel: no decoder with attention, or a field that the memory depends on is absent.
    """
    caveats: list[str] = []
    text = config
    if isinstance(config.get("text_config"), Mapping):
        text = {**config, **cast("Mapping[str, Any]", config["text_config"])}
        caveats.append("its vision or audio tower is not counted")
    _refuse_impossible_shapes(name, text)
    architecture = str((config.get("architectures") or [""])[0])
    _refuse_what_is_no_attention_decoder(name, text)
    heads, hidden = int(text["num_attention_heads"]), int(text["hidden_size"])
    layers = int(text["num_hidden_layers"])
    latent = int(text.get("kv_lora_rank") or 0)
    rope = int(text.get("qk_rope_head_dim") or 0)
    head_dim = int(text.get("head_dim") or hidden // heads)
    if latent:
        head_dim = int(text.get("qk_nope_head_dim") or 0) + rope
        caveats.append("multi-head latent attention was not compared with observed starts")
    window = int(text.get("sliding_window") or 0) if text.get("use_sliding_window", True) else 0
    window = window if window < int(text["max_position_embeddings"]) else 0
    if window:
        caveats.append(WINDOW_CAVEAT)
    experts = int(text.get("num_experts") or text.get("num_local_experts") or text.get("n_routed_experts") or 0)
    expert_ffn = int(text.get("moe_intermediate_size") or text.get("intermediate_size") or 0) if experts else 0
    shared = int(text.get("shared_expert_intermediate_size") or 0)
    shared = shared or int(text.get("n_shared_experts") or 0) * expert_ffn
    dense_layers = int(text.get("first_k_dense_replace") or 0) or len(text.get("mlp_only_layers") or ())
    if dense_layers > layers or not head_dim:
        raise UnsupportedModel(
            f"the config of `{name}` has {dense_layers} dense of {layers} layers, {head_dim} wide heads"
        )
    kind = str(text.get("model_type", ""))
    found = Model(
        name=name,
        architecture=architecture,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=int(text.get("num_key_value_heads") or heads),
        head_dim=head_dim,
        ffn=int(text.get("intermediate_size") or 4 * hidden),
        vocab=int(text["vocab_size"]),
        tied=bool(text.get("tie_word_embeddings", kind.startswith("gemma"))),
        max_positions=_max_positions(name, text),
        dtype=_dtype(text),
        qk_norm=kind.startswith(("qwen3", "gemma3")),
        qkv_bias=kind.startswith("qwen2") or bool(text.get("attention_bias")),
        norms=4 if kind.startswith(("gemma2", "gemma3")) else 2,
        experts=experts,
        experts_per_token=int(text.get("num_experts_per_tok") or 0),
        expert_ffn=expert_ffn,
        shared_ffn=shared,
        dense_layers=dense_layers,
        kv_lora_rank=latent,
        q_lora_rank=int(text.get("q_lora_rank") or 0),
        rope_dim=rope,
        v_head_dim=int(text.get("v_head_dim") or 0) if latent else 0,
        window=window,
        caveats=tuple(caveats),
    )
    return _with_quantization(found, config.get("quantization_config") or text.get("quantization_config"))


_NEEDED = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size", "max_position_embeddings")

_POSITIVE = ("num_key_value_heads", "head_dim", "intermediate_size", "moe_intermediate_size")
"""Above 0 where they are given at all."""

_NOT_NEGATIVE = (
    "kv_lora_rank",
    "q_lora_rank",
    "qk_rope_head_dim",
    "qk_nope_head_dim",
    "v_head_dim",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "num_experts_per_tok",
    "shared_expert_intermediate_size",
    "n_shared_experts",
    "first_k_dense_replace",
    "sliding_window",
)


def _refuse_impossible_shapes(name: str, text: Mapping[str, Any]) -> None:
    for key in ("architectures", "layer_types", "mlp_only_layers"):
        if not isinstance(text.get(key), list | None):
            raise UnsupportedModel(f"the config of `{name}` has `{key}`: {text[key]!r}, where a list works")
    absent = [key for key in _NEEDED if text.get(key) is None]
    if absent:
        raise UnsupportedModel(f"the config of `{name}` has no {', '.join(f'`{key}`' for key in absent)}")
    for least, keys in ((1, (*_NEEDED, *_POSITIVE)), (0, _NOT_NEGATIVE)):
        for key in keys:
            value = text.get(key)
            if value is not None and (type(value) is not int or value < least):
                works = "a whole number above 0" if least else "a whole number that is not negative"
                raise UnsupportedModel(f"the config of `{name}` has `{key}`: {value!r}, where {works} works")
    heads, kv_heads = text["num_attention_heads"], text.get("num_key_value_heads") or text["num_attention_heads"]
    if kv_heads > heads or (text.get("head_dim") is None and text["hidden_size"] < heads):
        raise UnsupportedModel(
            f"the config of `{name}` has {heads} attention heads for {kv_heads} key-value heads and a hidden size of "
            f"{text['hidden_size']}, which no decoder has"
        )


def _refuse_what_is_no_attention_decoder(name: str, text: Mapping[str, Any]) -> None:
    if text.get("is_encoder_decoder"):
        raise UnsupportedModel(f"`{name}` is an encoder-decoder; only decoders are known here")
    kinds = {str(kind) for kind in text.get("layer_types") or ()}
    if any(key in text for key in ("mamba_d_state", "ssm_cfg", "state_size", "linear_num_value_heads")) or any(
        "linear" in kind or "mamba" in kind for kind in kinds
    ):
        raise UnsupportedModel(f"`{name}` has state-space or linear-attention layers, whose cache is not modelled here")


def _number(name: str, settings: Mapping[str, Any], *keys: str) -> float:
    """The first of these keys that is given; 0 where none is."""
    key = next((key for key in keys if settings.get(key) is not None), keys[0])
    value = settings.get(key, 0) or 0
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise UnsupportedModel(f"the config of `{name}` has `{key}`: {value!r}, where a number works")
    return float(value)


def _max_positions(name: str, text: Mapping[str, Any]) -> int:
    """`max_position_embeddings`, times the YaRN factor when the config asks for it."""
    longest = int(text["max_position_embeddings"])
    scaling = text.get("rope_scaling")
    if isinstance(scaling, Mapping):
        kind = scaling.get("rope_type") or scaling.get("type")
        original = scaling.get("original_max_position_embeddings")
        if kind == "yarn" and isinstance(original, int):
            return max(longest, int(original * (_number(name, cast("Mapping[str, Any]", scaling), "factor") or 1)))
    return longest


def _dtype(text: Mapping[str, Any]) -> Dtype:
    named = str(text.get("dtype") or text.get("torch_dtype") or "bfloat16").removeprefix("torch.")
    return cast("Dtype", named) if named in ("bfloat16", "float16") else "float16"


def _map(value: object) -> Mapping[str, Any]:
    """The map; an empty one for anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _with_quantization(found: Model, raw: object) -> Model:
    if not isinstance(raw, Mapping):
        return found
    settings = cast("Mapping[str, Any]", raw)
    method = str(settings.get("quant_method") or "unknown").lower()
    bits = _number(found.name, settings, "bits", "w_bit")
    group = int(_number(found.name, settings, "group_size", "q_group_size"))
    if method == "bitsandbytes":
        bits = 8 if settings.get("load_in_8bit") else 4
    elif method == "compressed-tensors":
        first = next(iter(_map(settings.get("config_groups")).values()), None)
        weights = _map(_map(first).get("weights"))
        bits = _number(found.name, weights, "num_bits") or 8
        group = int(_number(found.name, weights, "group_size"))
    elif method == "modelopt":
        bits, group = (4, 16) if "FP4" in str(settings.get("quant_algo", "")).upper() else (8, 0)
    elif method == "mxfp4":
        bits, group = 4, 32
    if not 0 <= bits <= 16:
        raise UnsupportedModel(f"the config of `{found.name}` has quantised weights of {bits:g} bits")
    return replace(found, quantization=method, bits=bits or (8 if "fp8" in method else 4), group=max(group, 0))


@cache
def _catalogue() -> dict[str, Model]:
    raw = json.loads(data_text("models.json"))
    return {name: _entry(name, entry, raw["shapes"][entry["shape"]]) for name, entry in raw["models"].items()}


_BITS: Mapping[str, tuple[float, int]] = {"awq": (4, 128), "gptq": (4, 128), "fp8": (8, 0), "bitsandbytes": (4, 0)}


def _entry(name: str, entry: Mapping[str, Any], shape: Mapping[str, Any]) -> Model:
    own = {key: value for key, value in entry.items() if key != "shape"}
    bits, group = _BITS.get(own.get("quantization", ""), (16, 0))
    caveats = (WINDOW_CAVEAT,) if shape.get("window") else ()
    fields: dict[str, Any] = {"name": name, "bits": bits, "group": group, "caveats": caveats, **shape, **own}
    return Model(**fields)


@cache
def _by_lower_name() -> dict[str, Model]:
    return {name.lower(): found for name, found in _catalogue().items()}
