"""Whether an HTTP client heeds the proxy of its environment (`HTTPS_PROXY` and the like)."""

from __future__ import annotations

from urllib.parse import urlsplit


def heeded_for(url: str) -> bool:
    """What httpx calls `trust_env`: a proxy for the outside must not be asked for this machine's own servers."""
    host = urlsplit(url).hostname or ""
    return host not in ("localhost", "::1") and not host.startswith("127.")
