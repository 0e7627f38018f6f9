"""What is deployed, and how the `modal` package wants it declared."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import modal

FUNCTION = "serve"
"""The function of an app that serves; its name is part of the address."""
PORT = 8000
CACHE_PATH = "/cache"
"""Where the volume is mounted."""

_PYTHON = "3.12"
"""The Python that Modal's own runner gets beside the image's; vLLM's stays what it is."""


@dataclass(frozen=True)
class Definition:
    """What an app consists of.

    Attributes:
        gpus: as Modal writes them (`A10`, `H100:2`), first choice first.
        cpu: physical cores of a container.
        memory_mib: of a container.
        secrets: environment variables; they live in a secret that belongs to the app.
        volume: name of the volume that is mounted at `CACHE_PATH`, "" for none.
        startup_timeout_s: seconds until the port has to listen.
    """

    tags: Mapping[str, str]
    gpus: tuple[str, ...]
    cpu: float
    memory_mib: int
    regions: tuple[str, ...]
    routing_region: str
    image: str
    secrets: Mapping[str, str]
    volume: str
    min_containers: int
    max_containers: int
    scaledown_window_s: int
    concurrency: int
    timeout_s: int
    startup_timeout_s: int


def app_of(name: str, environment: str, definition: Definition) -> modal.App:
    """The app as the package wants it declared."""
    import modal

    app = modal.App(name, tags=dict(definition.tags))
    image = modal.Image.from_registry(definition.image, add_python=_PYTHON).entrypoint([])
    volumes: dict[str, modal.Volume] = {}
    if definition.volume:
        volumes[CACHE_PATH] = modal.Volume.from_name(definition.volume, environment_name=environment)
    served = modal.web_server(PORT, startup_timeout=definition.startup_timeout_s)(_starter().serve)
    app.function(
        image=image,
        gpu=list(definition.gpus) if len(definition.gpus) > 1 else next(iter(definition.gpus), None),
        cpu=definition.cpu,
        memory=definition.memory_mib,
        region=list(definition.regions) or None,
        routing_region=definition.routing_region or None,
        volumes=volumes,  # pyright: ignore[reportArgumentType]
        secrets=[modal.Secret.from_dict(dict(definition.secrets))],
        min_containers=definition.min_containers,
        max_containers=definition.max_containers,
        scaledown_window=definition.scaledown_window_s,
        timeout=definition.timeout_s,
        startup_timeout=definition.startup_timeout_s,
    )(modal.concurrent(max_inputs=definition.concurrency)(served))
    return app


@cache
def _starter() -> ModuleType:
    """`vllm_anywhere_start` under its bare name: of a package, Modal would upload all."""
    path = Path(__file__).with_name("vllm_anywhere_start.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
