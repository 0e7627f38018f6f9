"""Every native resource of Modal, for the plugin."""

from __future__ import annotations

from typing import Any

from providers.modal.apps import App
from providers.modal.volumes import VolumeResource
from providers.native import NativeResource

RESOURCES: tuple[NativeResource[Any, Any], ...] = (VolumeResource(), App())
