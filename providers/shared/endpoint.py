"""One question to an OpenAI-compatible endpoint, the way a user would ask it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from providers.proxies import heeded_for

_PROMPT = "Say hello."
_MAX_TOKENS = 8
# Longer than RunPod's proxy waits (100 s), so that its own 524 is what gets reported.
_TIMEOUT = httpx.Timeout(120.0, connect=10.0)


@dataclass(frozen=True)
class Answer:
    """The model answered. `first_token_s`: seconds from the request to its first token."""

    first_token_s: float


@dataclass(frozen=True)
class NotYet:
    """It did not, and why. `final`: waiting longer can't help."""

    reason: str
    final: bool = False


class Endpoint:
    """An OpenAI base URL (ending in /v1), its key, and the CA that vouches for it, PEM ("" for the public ones).

    `transport` is the seam for tests.
    """

    def __init__(self, url: str, key: str, ca_pem: str = "", transport: httpx.BaseTransport | None = None) -> None:
        self._url = url
        self._http = httpx.Client(
            transport=transport,
            verify=trust(ca_pem),
            timeout=_TIMEOUT,
            headers={"Authorization": f"Bearer {key}"},
            trust_env=heeded_for(url),
        )

    def models(self) -> list[str]:
        """The names that the server answers to.

        Raises:
            httpx.HTTPError: when it does not answer, or not with success.
        """
        listed = self._http.get(f"{self._url}/models").raise_for_status().json()["data"]
        return [name for model in listed for name in (model["id"], *model.get("aliases", ()))]

    def ask(self, model: str, clock: Callable[[], float]) -> Answer | NotYet:
        """Whether `model` is listed and completes a streamed answer."""
        try:
            names = self.models()
            if model not in names:
                return NotYet(f"it serves {', '.join(names)}, not {model}")
            return self._complete(model, clock)
        except httpx.HTTPStatusError as error:
            return self._refused(error.response)
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            return NotYet(f"{type(error).__name__} {error}".strip())

    def _complete(self, model: str, clock: Callable[[], float]) -> Answer | NotYet:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": _PROMPT}],
            "max_tokens": _MAX_TOKENS,
            "stream": True,
        }
        begun = clock()
        first = 0.0
        with self._http.stream("POST", f"{self._url}/chat/completions", json=body) as response:
            if response.is_error:
                response.read()
                return self._refused(response)
            for line in response.iter_lines():
                # Keep-alives are comments, and events may have names: only data counts.
                data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
                if data == "[DONE]":
                    return Answer(first) if first else NotYet("the answer was empty")
                if data and not first and _has_token(data):
                    first = clock() - begun
        return NotYet("the answer broke off")

    def _refused(self, response: httpx.Response) -> NotYet:
        detail = " ".join(response.text.split())[:200]
        final = response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
        return NotYet(f"HTTP {response.status_code} {detail}".strip(), final)


def trust(ca_pem: str) -> ssl.SSLContext | bool:
    """What `verify=ca.pem` is to a user of httpx; the public CAs when there is none."""
    if not ca_pem:
        return True
    from serving.tls import context

    return context(ca_pem)


def _has_token(data: str) -> bool:
    """Whether a chunk carries text; reasoning counts, the role alone does not."""
    choices = json.loads(data).get("choices") or [{}]
    delta = choices[0].get("delta") or {}
    return any(delta.get(field) for field in ("content", "reasoning", "reasoning_content", "tool_calls"))
