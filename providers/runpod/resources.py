"""RunPod's native resources."""

from __future__ import annotations

from typing import Any

from providers.native import NativeResource
from providers.runpod.pods import PodResource

RESOURCES: tuple[NativeResource[Any, Any], ...] = (PodResource(),)
