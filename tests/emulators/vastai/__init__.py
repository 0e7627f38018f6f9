"""Vast.ai at the wire, emulated from its documents and from what users of it have reported."""

from .api import VastEmulator
from .market import offer_row
from .servers import Servers

__all__ = ["Servers", "VastEmulator", "offer_row"]
