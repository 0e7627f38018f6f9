"""`vllm-anywhere chat`: a conversation with a stack's model."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from ops.client import ChatClient, Message, Usage
from ops.stack import Stack


def chat(
    stack: Stack,
    question: str,
    *,
    system: str,
    max_tokens: int | None,
    temperature: float | None,
    as_json: bool,
    out: TextIO = sys.stdout,
    ask: Callable[[str], str] = input,
    client: ChatClient | None = None,
) -> None:
    """Answer one question, or, without one, converse until the end of input.

    Raises:
        OpsError: when the endpoint does not answer.
    """
    client = client or ChatClient(stack.endpoint, stack.api_key.get_secret_value(), stack.ca_pem)
    history: list[Message] = [{"role": "system", "content": system}] if system else []

    def answer() -> str:
        return _answer(stack, client, history, max_tokens, temperature, as_json, out)

    if question:
        history.append({"role": "user", "content": question})
        answer()
        return
    print(f"{stack.model} on {stack.provider}. Ctrl-D ends.", file=out)
    while True:
        try:
            text = ask("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print(file=out)
            return
        if text:
            history.append({"role": "user", "content": text})
            history.append({"role": "assistant", "content": answer()})


def _answer(
    stack: Stack,
    client: ChatClient,
    history: Sequence[Message],
    max_tokens: int | None,
    temperature: float | None,
    as_json: bool,
    out: TextIO,
) -> str:
    usage = Usage()
    begun = time.monotonic()
    first: float | None = None
    pieces: list[str] = []
    for piece in client.stream(stack.model, history, usage, max_tokens=max_tokens, temperature=temperature):
        first = time.monotonic() - begun if first is None else first
        pieces.append(piece)
        if not as_json:
            print(piece, end="", file=out, flush=True)
    text = "".join(pieces)
    if as_json:
        record = {
            "model": stack.model,
            "answer": text,
            "first_token_s": None if first is None else round(first, 3),
            "total_s": round(time.monotonic() - begun, 3),
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
        }
        print(json.dumps(record), file=out)
    else:
        print(file=out)
    return text
