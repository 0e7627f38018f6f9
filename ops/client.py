"""Talks to a deployed endpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from ops.stack import OpsError, Stack
from providers.proxies import heeded_for
from providers.shared.endpoint import trust

Message = Mapping[str, str]

_TIMEOUT = httpx.Timeout(120.0, connect=10.0)


@dataclass(frozen=True)
class Health:
    """One look at an endpoint: whether it listens, accepts the key, and which models it names; or why not."""

    ok: bool
    models: tuple[str, ...]
    latency_ms: float
    problem: str = ""


@dataclass
class Usage:
    """Tokens of a finished answer, as the server counted them; None when it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class ChatClient:
    """An OpenAI base URL (ending in /v1), its key, and the CA that vouches for it, PEM ("" for the public ones).

    `transport` is the seam for tests.
    """

    def __init__(self, endpoint: str, key: str, ca_pem: str = "", transport: httpx.BaseTransport | None = None) -> None:
        self._endpoint = endpoint
        self._http = httpx.Client(
            transport=transport,
            verify=trust(ca_pem),
            timeout=_TIMEOUT,
            headers={"Authorization": f"Bearer {key}"},
            trust_env=heeded_for(endpoint),
        )

    @classmethod
    def of(cls, stack: Stack) -> ChatClient:
        """The client of a stack's endpoint."""
        return cls(stack.endpoint, stack.api_key.get_secret_value(), stack.ca_pem)

    def health(self) -> Health:
        """Ask for the models, with the key."""
        begun = time.perf_counter()
        try:
            answer = self._http.get(f"{self._endpoint}/models")
            took = (time.perf_counter() - begun) * 1000
            if answer.is_error:
                return Health(False, (), took, f"HTTP {answer.status_code}")
            return Health(True, tuple(model["id"] for model in answer.json()["data"]), took)
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            return Health(False, (), 0.0, f"{type(error).__name__}: {error}")

    def stream(self, model: str, messages: Sequence[Message], usage: Usage, **options: Any) -> Iterator[str]:
        """The answer's text, piece by piece. `usage` is filled in when the answer is complete.

        Raises:
            OpsError: when the server refuses, breaks off, or can't be reached.
        """
        body = {
            "model": model,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **{name: value for name, value in options.items() if value is not None},
        }
        done = False
        try:
            with self._http.stream("POST", f"{self._endpoint}/chat/completions", json=body) as answer:
                if answer.is_error:
                    text = " ".join(answer.read().decode(errors="replace").split())[:300]
                    raise OpsError(f"{self._endpoint} refused: HTTP {answer.status_code} {text}")
                for line in answer.iter_lines():
                    data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
                    if data == "[DONE]":
                        done = True
                    elif data:
                        yield from _pieces(json.loads(data), usage)
        except (httpx.HTTPError, ValueError, AttributeError) as error:
            raise OpsError(f"{self._endpoint} does not answer: {error}; `vllm-anywhere status` says more") from None
        if not done:
            raise OpsError(f"{self._endpoint} broke the answer off")


def _pieces(chunk: Mapping[str, Any], usage: Usage) -> Iterator[str]:
    if counted := chunk.get("usage"):
        usage.prompt_tokens = counted.get("prompt_tokens")
        usage.completion_tokens = counted.get("completion_tokens")
    for choice in chunk.get("choices") or ():
        if piece := (choice.get("delta") or {}).get("content"):
            yield piece
