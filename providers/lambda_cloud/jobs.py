"""What an instance says of itself while its server does not answer yet."""

from __future__ import annotations

from providers.base import PlatformError
from providers.lambda_cloud.client import log_tail


def waiting_on(server_id: str) -> str:
    """The last line of its log; "" while it says nothing."""
    try:
        return next(iter(log_tail(server_id, 1)), "")[:120]
    except PlatformError:
        return ""
