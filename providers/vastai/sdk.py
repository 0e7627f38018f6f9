"""The calls for which `vastai-sdk` is used: bid, label and logs. They may be repeated, and need nothing optional.

The SDK is imported when the first of them is made: it takes half a second and brings 700 modules.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from decimal import Decimal
from functools import cached_property
from typing import Any

from providers.base import AuthError, PlatformError
from providers.vastai.client import KEY_VARIABLE, Operation, TooFrequent, Vast


class Sdk:
    """The vendor's client beside `vast`, with its key, address and pace."""

    def __init__(self, vast: Vast) -> None:
        self._vast = vast

    def bid(self, id: str, usd: Decimal) -> None:
        """Bid that many US dollars an hour for an interruptible instance."""
        # JSON has one kind of number; a bid of at most six decimals survives the float unchanged.
        self._send("bid", f"the bid for {id}", lambda: self._client.change_bid(id=int(id), price=float(usd)))

    def label(self, id: str, label: str) -> None:
        """Give an instance another label."""
        self._send("change", f"the label of {id}", lambda: self._client.label_instance(id=int(id), label=label))

    def log_tail(self, id: str, lines: int) -> list[str]:
        """The last lines that the container wrote."""
        text = self._send("change", f"the log of {id}", lambda: self._client.logs(instance_id=int(id), tail=str(lines)))
        return str(text).splitlines()[-lines:] if isinstance(text, str) else []

    def _send(self, operation: Operation, what: str, call: Callable[[], Any]) -> Any:
        def once() -> Any:
            import requests

            try:
                answer = call()
            except requests.HTTPError as error:
                raise _told(what, error) from None
            except (requests.RequestException, ValueError, TimeoutError) as error:
                raise PlatformError(f"Vast.ai did not answer about {what}: {type(error).__name__}") from None
            # A refusal may come with status 200, which the SDK hands on.
            if isinstance(answer, dict) and answer.get("success") is False:
                raise PlatformError(f"Vast.ai refused {what}: {answer.get('error')} {answer.get('msg') or ''}".strip())
            return answer

        self._client  # noqa: B018 - says what to install before anything is tried
        return self._vast.patiently(operation, once)

    @cached_property
    def _client(self) -> Any:
        try:
            from vastai import VastAI
        except ImportError:
            raise PlatformError(
                "Vast.ai's SDK is missing, which changes bids and labels and reads logs: `pip install vastai-sdk`"
            ) from None
        # Importing it makes a handler that writes to stderr.
        logging.getLogger("vastai").setLevel(logging.CRITICAL)
        # `retry` counts attempts: its own pauses are shorter than the limits that they would have to outlast.
        made = VastAI(api_key=self._vast.key, server_url=self._vast.url, retry=1)
        # 120 s otherwise; `requests` takes fractions, whatever the SDK's annotation says.
        made.client.timeout = self._vast.timeout.read  # pyright: ignore[reportAttributeAccessIssue]
        return made


def _told(what: str, error: Any) -> PlatformError:
    status = error.response.status_code
    text = " ".join(error.response.text.split())[:200]
    if status == 429:
        return TooFrequent(f"Vast.ai: too many requests about {what}")
    if status in (401, 403):
        return AuthError(f"Vast.ai refuses the key in ${KEY_VARIABLE} for {what}: {text}")
    return PlatformError(f"Vast.ai refused {what} with HTTP {status}: {text}")
