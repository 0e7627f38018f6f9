"""`vllm-anywhere chat`: a conversation with a stack's model."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from ops.client import ChatClient, Message, Usage
from ops.stack import OpsError, Stack, read_stack, stack_options
from ops.url import add_url_options, served_model, stack_of_url


def add_chat(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("chat", parents=[stack_options()], help=__doc__)
    add_url_options(parser)
    parser.add_argument("--model", default="", help="of --url: the model to ask (default: what it serves)")
    parser.add_argument("question", nargs="*", help="the question; without one, a conversation (or all of stdin)")
    parser.add_argument("--system", default="", help="a system prompt")
    parser.add_argument("--max-tokens", type=int, help="longest answer, in tokens")
    parser.add_argument("--temperature", type=float, help="0 always gives the same answer")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    question = " ".join(args.question)
    if not question and not sys.stdin.isatty():
        question = sys.stdin.read().strip()
        if not question:
            raise OpsError('nothing was asked: vllm-anywhere chat "your question"')
    chat(
        _asked(args) if args.url else read_stack(args.stack),
        question,
        system=args.system,
        max_tokens=args.max_tokens,
        temperature=args.temperature,
        as_json=args.json,
    )
    return 0


def _asked(args: argparse.Namespace) -> Stack:
    found = stack_of_url(args)
    model = args.model or served_model(found.endpoint, found.api_key.get_secret_value(), found.ca_pem)
    return found.model_copy(update={"model": model})


def chat(
    stack: Stack,
    question: str,
    *,
    system: str,
    max_tokens: int | None,
    temperature: float | None,
    as_json: bool,
    out: TextIO | None = None,
    ask: Callable[[str], str] = input,
    client: ChatClient | None = None,
) -> None:
    """Answer one question, or, without one, converse until the end of input.

    Raises:
        OpsError: when the endpoint does not answer.
    """
    target: TextIO = out or sys.stdout
    client = client or ChatClient.of(stack)
    history: list[Message] = [{"role": "system", "content": system}] if system else []

    def answer() -> str:
        return _answer(stack, client, history, max_tokens, temperature, as_json, target)

    if question:
        history.append({"role": "user", "content": question})
        answer()
        return
    where = f"{stack.model} on {stack.provider}" if stack.provider else f"{stack.model} at {stack.endpoint}"
    print(f"{where}. Ctrl-D ends.", file=target)
    while True:
        try:
            text = ask("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print(file=target)
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
