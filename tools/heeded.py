"""Which platforms heed a key of the spec, found by changing it: does the plan differ, or is the change refused?

Adapters are pure, so a plan costs milliseconds and rents nothing. Prices are the dated ones, and `local` is taken to
have a GPU and vLLM, so the answer is the same on every machine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from providers.base import FOR_TESTS, Ask, load_adapter, load_market, platform_names
from providers.local.pricing import Machine
from providers.market import OFFLINE
from providers.replicas import replicas, resources
from serving.config import parse_part, parse_spec
from serving.spec import DeploymentSpec, PlacementSpec, SpecError

ROOT = Path(__file__).resolve().parents[1]
_WITH_GPU = Machine(cores=8, memory_gib=32, gpu="L4", capability=8.9, vllm=True, stand_in="")

OTHERS: Mapping[str, Sequence[Any]] = {
    "model.name": ["Qwen/Qwen3-8B"],
    "model.revision": ["other"],
    "model.served_name": ["other"],
    "model.max_len": [4096],
    "model.dtype": ["half", "float32"],
    "model.quantization": ["fp8"],
    "model.kv_cache_dtype": ["fp8"],
    "engine.version": ["0.26.0"],
    "engine.image": ["example/other:1"],
    "engine.gpu_memory_utilization": [0.8],
    "engine.max_num_seqs": [128],
    "engine.max_num_batched_tokens": [4096],
    "engine.enforce_eager": [True],
    "engine.extra_args": [["--seed=1"]],
    "hardware.gpus": [["RTX 6000 Ada"]],
    "hardware.gpu_count": [2],
    "hardware.disk_gb": [200],
    "hardware.spot": [True, False],
    "placement.regions": [["us"]],
    "placement.tier": ["any", "secure"],
    "placement.gdpr": [True],
    "scaling.min": [2],
    "scaling.max": [7],
    "scaling.idle_timeout_s": [90],
}
"""Other values for each key that platforms translate; the other sections are the project's own and count everywhere."""

MODES: Mapping[str, str] = {
    "local": "local.example",
    "runpod pods": "runpod",
    "runpod serverless": "runpod-serverless",
    "runpod load balancing": "runpod-load-balancing",
    "gcp": "gcp-l4",
    "gcp groups": "gcp-t4-spot",
}
"""Ways to serve whose file in stacks/ hasn't the platform's own name; a platform is the first word."""


def ways() -> dict[str, str]:
    """Each way to serve, with its file in stacks/."""
    said = {way.partition(" ")[0] for way in MODES} | {FOR_TESTS}
    return {**MODES, **{name: name for name in platform_names() if name not in said}}


def where_heeded() -> dict[str, str]:
    """For each key of `OTHERS` that not every way heeds: those that do, in words."""
    with _offline():
        read = {name: _Way.read(ROOT / f"stacks/Pulumi.{stack}.yaml") for name, stack in ways().items()}
        found = {key: [name for name, way in read.items() if way.heeds(key)] for key in OTHERS}
    return {key: _in_words(names) for key, names in found.items() if len(names) < len(read)}


@dataclass(frozen=True)
class _Way:
    spec: DeploymentSpec
    section: Mapping[str, Any]

    @classmethod
    def read(cls, file: Path) -> _Way:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))["config"]
        text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
        return cls(*parse_spec(text, platform_names()))

    def plan(self, spec: DeploymentSpec) -> object:
        """Everything that is made of a spec: the reasons against it, or the offers and what is registered."""
        adapter = load_adapter(spec.provider)
        options = parse_part(adapter.options, self.section, spec.provider)
        market = _WITH_GPU if spec.provider == "local" else load_market(spec.provider)(spec)
        ask = Ask(spec, options, market)
        reasons = adapter.unsupported(ask)
        offers = [] if reasons else adapter.offers(ask)
        declared = adapter.resources(ask, offers[0]) if offers else None
        return reasons, offers, declared and (declared, resources(declared, replicas(declared, spec.scaling.min)))

    def heeds(self, key: str) -> bool:
        """Whether any other value of the key makes another plan, for the spec itself or when it may run anywhere."""
        part, _, field = key.partition(".")
        anywhere = self.spec.model_copy(update={"placement": PlacementSpec(regions=(), tier="any")})
        return any(
            self._outcome(spec, part, {field: value}) != self._outcome(spec, part, {})
            for spec in (self.spec, anywhere)
            for value in OTHERS[key]
        )

    def _outcome(self, spec: DeploymentSpec, part: str, changed: Mapping[str, Any]) -> object:
        raw = spec.model_dump(mode="json")
        raw[part] = {**raw[part], **changed}
        raw["scaling"]["max"] = max(raw["scaling"]["min"], raw["scaling"]["max"])
        try:
            return self.plan(parse_part(DeploymentSpec, raw, ""))
        except SpecError as error:
            return error.problems


def _in_words(names: Sequence[str]) -> str:
    without = [name for name in ways() if name not in names]
    return ", ".join(names) or "nowhere" if len(names) <= len(without) else f"all but {', '.join(without)}"


@contextmanager
def _offline() -> Generator[None, None, None]:
    before = os.environ.get(OFFLINE)
    os.environ[OFFLINE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[OFFLINE]
        else:
            os.environ[OFFLINE] = before
