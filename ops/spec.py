"""The spec of a stack, read from its file, for commands that ask about a deployment that need not exist."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ops.stack import ROOT, OpsError
from providers.base import platform_names
from serving import NAMESPACE
from serving.config import parse_spec
from serving.names import check_names
from serving.spec import DeploymentSpec, SpecError


def add_spec_options(parser: argparse.ArgumentParser) -> None:
    """`-s` and `--set`: which spec a command is about."""
    parser.add_argument("-s", "--stack", default="", help="the stack whose file holds the spec (default: all defaults)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="change the spec for this answer, such as --set model.max_len=16384 (may be repeated)",
    )


def asked_spec(args: argparse.Namespace) -> DeploymentSpec:
    """The spec that a command line asks about.

    Raises:
        OpsError: no such stack file, or a spec that is wrong.
    """
    return read_spec(args.stack, args.settings)


def read_spec(stack: str, settings: Sequence[str] = (), folder: Path = ROOT / "stacks") -> DeploymentSpec:
    """The spec of `stacks/Pulumi.<stack>.yaml` ("" for the defaults), with `KEY=VALUE` settings over it.

    Raises:
        OpsError: no such stack file, or a spec that is wrong.
    """
    config = asked_config(stack, settings, folder)
    texts = {
        key: value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in config.items()
        if not (isinstance(value, Mapping) and set(value) == {"secure"})
    }
    try:
        spec = parse_spec(texts, platform_names())[0]
        check_names(spec)
    except SpecError as error:
        raise OpsError(f"the spec is wrong\n{error}") from None
    return spec


def asked_config(stack: str, settings: Sequence[str], folder: Path = ROOT / "stacks") -> dict[str, Any]:
    """The config of `stacks/Pulumi.<stack>.yaml` ("" for none) by its full keys, with `KEY=VALUE` settings over it.

    Raises:
        OpsError: no such stack file, or a setting that is none.
    """
    config = _stack_config(folder / f"Pulumi.{stack}.yaml") if stack else {}
    for setting in settings:
        _change(config, setting)
    return config


def _stack_config(path: Path) -> dict[str, Any]:
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = sorted(p.name.removeprefix("Pulumi.").removesuffix(".yaml") for p in path.parent.glob("Pulumi.*.yaml"))
        raise OpsError(f"there is no stack file {path.name}; there are: {', '.join(there) or 'none'}") from None
    except (OSError, yaml.YAMLError) as error:
        raise OpsError(f"the stack file {path.name} can't be read: {error}") from None
    try:
        config = dict((content or {}).get("config") or {})
    except (AttributeError, TypeError, ValueError):
        raise OpsError(f"the stack file {path.name} can't be read: its `config` is no map of settings") from None
    return {key if ":" in key else f"{NAMESPACE}:{key}": _as_map(value) for key, value in config.items()}


def _as_map(value: Any) -> Any:
    """A section that `pulumi config set` wrote as JSON text as what it is; else the value itself."""
    try:
        found: Any = json.loads(value) if isinstance(value, str) else None
    except ValueError:
        return value
    return found if isinstance(found, dict) else value  # pyright: ignore[reportUnknownVariableType]


def _change(config: dict[str, Any], setting: str) -> None:
    path, equals, text = setting.partition("=")
    section, _, field = path.removeprefix(f"{NAMESPACE}:").partition(".")
    if not equals or not section or (not field and section != "provider"):
        raise OpsError(f"--set {setting}: a key and a value, such as --set model.max_len=16384")
    key = f"{NAMESPACE}:{section}"
    if not field:
        config[key] = text
        return
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    *parents, last = field.split(".")
    at = config
    for name in (key, *parents):
        inner = at.get(name) or {}
        if not isinstance(inner, Mapping):
            raise OpsError(f"--set {setting}: {name} is {inner!r} in the stack file, which has no settings in it")
        at[name] = dict(inner)  # pyright: ignore[reportUnknownArgumentType]
        at = at[name]
    at[last] = value
