"""Which addresses a proxy is asked for."""

from __future__ import annotations

import pytest

from providers.proxies import heeded_for


@pytest.mark.parametrize(
    ("url", "heeded"),
    [
        ("https://api.runpod.io", True),
        ("https://127-0-0-1.proxy.runpod.net/v1", True),
        ("http://127.0.0.1:8000/v1", False),
        ("https://127.0.0.2:8443", False),
        ("http://localhost:8000", False),
        ("http://[::1]:8000/v1", False),
    ],
)
def test_a_proxy_is_asked_for_the_outside_alone(url: str, heeded: bool) -> None:
    assert heeded_for(url) is heeded
