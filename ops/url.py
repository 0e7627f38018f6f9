"""An endpoint that is nobody's stack: any OpenAI base URL, by the options that every command about one takes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from ops.client import ChatClient, Health
from ops.stack import OpsError, ReadyOutput, Stack

KEY_VARIABLES = ("VLLM_ANYWHERE_KEY", "OPENAI_API_KEY")
"""Where the key of `--url` is looked for, in this order."""

Ask = Callable[[str, str, str], Health]


def ask_health(url: str, key: str, ca_pem: str) -> Health:
    """One look at an endpoint."""
    return ChatClient(url, key or "none", ca_pem).health()


def add_url_options(options: Any) -> None:
    """`--url`, `--key` and `--ca`, for a parser or a group of options."""
    options.add_argument("--url", default="", help="an OpenAI base URL instead of a stack")
    options.add_argument("--key", default="", help=f"its key; better in {' or '.join(KEY_VARIABLES)}")
    options.add_argument("--ca", type=Path, metavar="FILE", help="its own certificate authority, PEM (a stack has its)")


def url_key(args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> str:
    """The key of `--url`; "" when none was given."""
    return args.key or next((environ[name] for name in KEY_VARIABLES if environ.get(name)), "")


def url_ca(args: argparse.Namespace) -> str:
    """The authority of `--url` as PEM; "" for the public ones.

    Raises:
        OpsError: the file can't be read.
    """
    if args.ca is None:
        return ""
    try:
        return args.ca.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise OpsError(f"--ca {args.ca} can't be read: {error}") from None


def url_base(args: argparse.Namespace) -> str:
    """The URL without a slash at its end.

    Raises:
        OpsError: it isn't one.
    """
    parts = urlsplit(args.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OpsError(f"--url {args.url}: an OpenAI base URL, such as https://host/v1")
    return args.url.rstrip("/")


def served_model(url: str, key: str, ca_pem: str, ask: Ask = ask_health) -> str:
    """The model that an endpoint serves.

    Raises:
        OpsError: it doesn't tell.
    """
    health = ask(url, key, ca_pem)
    if not health.models:
        raise OpsError(
            f"{url} doesn't tell its models ({health.problem or 'none listed'}); --model NAME says which, the key is "
            f"read from {' or '.join(KEY_VARIABLES)}, and --ca FILE has a certificate authority of its own"
        )
    return health.models[0]


def stack_of_url(args: argparse.Namespace, model: str = "", environ: Mapping[str, str] = os.environ) -> Stack:
    """The endpoint as if it were a stack's, named after its host, of unknown price and platform.

    Raises:
        OpsError: a wrong URL, or a file for --ca that can't be read.
    """
    url = url_base(args)
    return Stack(
        name=urlsplit(url).hostname or url,
        endpoint=url,
        api_key=SecretStr(url_key(args, environ)),
        model=model,
        provider="",
        hardware="",
        cost={},
        ready=ReadyOutput(time_to_ready_s=None, first_token_s=None, answered_at=None),
        ca_pem=url_ca(args),
    )
