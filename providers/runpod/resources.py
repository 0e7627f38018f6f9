"""RunPod's native resources."""

from __future__ import annotations

from typing import Any

from providers.native import NativeResource
from providers.runpod.endpoints import EndpointResource
from providers.runpod.pods import PodResource
from providers.runpod.vault import SecretResource
from providers.runpod.volumes import RegistryResource, VolumeResource
from providers.runpod.weights import WeightsResource

RESOURCES: tuple[NativeResource[Any, Any], ...] = (
    PodResource(),
    EndpointResource(),
    VolumeResource(),
    WeightsResource(),
    RegistryResource(),
    SecretResource(),
)
