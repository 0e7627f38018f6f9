"""`vllm-anywhere`: what people run around a deployment."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from ops.breakeven import add_breakeven
from ops.chat import chat
from ops.comment import add_comment
from ops.compare import add_compare
from ops.fit import add_fit
from ops.prices import add_prices
from ops.schema import stack_file_schema
from ops.stack import OpsError, read_stack
from ops.status import hello, status


def main(argv: Sequence[str] | None = None) -> None:
    """The command line. Exits 0 when done, 1 when the answer is no or an error, 2 on wrong usage."""
    args = _parser().parse_args(argv)
    try:
        sys.exit(args.run(args))
    except OpsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the output has enough; there is nobody left to tell.
        sys.stderr.close()
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vllm-anywhere", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    stack = argparse.ArgumentParser(add_help=False)
    stack.add_argument("-s", "--stack", default="local", help="the Pulumi stack (default: local)")
    stack.add_argument("--json", action="store_true", help="one JSON object per answer, for programs")

    talk = commands.add_parser("chat", parents=[stack], help="ask the stack's model something")
    talk.add_argument("question", nargs="*", help="the question; without one, a conversation (or all of stdin)")
    talk.add_argument("--system", default="", help="a system prompt")
    talk.add_argument("--max-tokens", type=int, help="longest answer, in tokens")
    talk.add_argument("--temperature", type=float, help="0 always gives the same answer")
    talk.set_defaults(run=_chat)

    look = commands.add_parser("status", parents=[stack], help="what a stack serves, and whether it answers now")
    look.set_defaults(run=lambda args: status(read_stack(args.stack), as_json=args.json))  # pyright: ignore

    greet = commands.add_parser("hello", parents=[stack], help="how to use a stack's endpoint, to copy and paste")
    greet.set_defaults(run=_hello)

    add_compare(commands)
    add_fit(commands)
    add_prices(commands)
    add_comment(commands)
    add_breakeven(commands, [])

    describe = commands.add_parser("schema", help="the JSON Schema of a stack file, for editors")
    describe.set_defaults(run=_schema)
    return parser


def _chat(args: argparse.Namespace) -> int:
    question = " ".join(args.question)
    if not question and not sys.stdin.isatty():
        question = sys.stdin.read().strip()
        if not question:
            raise OpsError('nothing was asked: vllm-anywhere chat "your question"')
    chat(
        read_stack(args.stack),
        question,
        system=args.system,
        max_tokens=args.max_tokens,
        temperature=args.temperature,
        as_json=args.json,
    )
    return 0


def _schema(args: argparse.Namespace) -> int:
    print(json.dumps(stack_file_schema(), indent=2))
    return 0


def _hello(args: argparse.Namespace) -> int:
    hello(read_stack(args.stack))
    return 0
