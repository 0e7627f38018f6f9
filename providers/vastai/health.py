"""Whether a server answers at an address: `GET /health`, which needs no key."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from providers.proxies import heeded_for

_TIMEOUT = httpx.Timeout(5.0)


def answers(ca_pem: str) -> Callable[[str], bool]:
    """A check of `host:port`. With a CA the server has to hold a certificate of it, for whichever address."""
    scheme, verify = "http", False
    if ca_pem:
        from serving.tls import context

        scheme, verify = "https", context(ca_pem, any_address=True)

    def ask(address: str) -> bool:
        try:
            url = f"{scheme}://{address}"
            with httpx.Client(verify=verify, timeout=_TIMEOUT, trust_env=heeded_for(url)) as http:
                return http.get(f"{url}/health").status_code == httpx.codes.OK.value
        except httpx.HTTPError:
            return False

    return ask
