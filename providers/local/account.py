"""This machine as an account: what it has to serve with, and the servers that were started on it."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Collection, Iterator
from decimal import Decimal
from pathlib import PurePath

from providers.account import Balance, Check, Holding
from providers.local.client import LocalMachine, state_folder
from providers.local.pricing import Machine, query
from providers.local.resources import Server, ServerOutputs
from providers.native import Context
from serving.spec import DeploymentSpec

PYTHON = (3, 11)
"""The oldest Python that the project runs on."""


class LocalAccount:
    """Needs no key, bills nobody."""

    def __init__(self, machine: LocalMachine, found: Machine | None = None) -> None:
        self._machine = machine
        self._found = found

    def identify(self) -> str:
        return "this machine asks for no key"

    def balance(self) -> Balance | None:
        return None

    def regions(self) -> frozenset[str] | None:
        return None

    def checks(self) -> list[Check]:
        found = self._found or query(DeploymentSpec())
        return [_python(sys.version_info[:2]), *engine_checks(found, has_llama=_installed("xllamacpp")), _folder()]

    def holdings(self, stacks: Collection[str]) -> list[Holding]:
        return [
            Holding("server", label, label, "running" if self._machine.is_running(label) else "stopped", Decimal(0))
            for label in self._machine.labels()
        ]

    def release(self, context: Context, holding: Holding) -> None:
        unknown = ServerOutputs(label=holding.label, endpoint="", port=0, pid=0, status="", log_file="")
        Server().delete(context, holding.id, unknown)


def engine_checks(machine: Machine, *, has_llama: bool) -> Iterator[Check]:
    """Whether there is something to serve with."""
    if machine.gpu:
        yield Check("GPU", "ok", f"{machine.gpu}, compute capability {machine.capability:g}")
    else:
        yield Check("GPU", "ok", "no NVIDIA GPU: llama.cpp serves on the CPU")
    if machine.vllm and machine.gpu:
        yield Check("vLLM", "ok", "`vllm` is on PATH and serves on the GPU")
    elif machine.gpu:
        yield Check("vLLM", "warning", "not on PATH, so the GPU is not used", "pip install vllm")
    else:
        yield Check("vLLM", "ok", "not used without a GPU")
    if machine.stand_in and has_llama:
        yield Check("stand-in", "ok", f"llama.cpp and {PurePath(machine.stand_in).name}")
    elif machine.vllm and machine.gpu:
        yield Check("stand-in", "ok", "not installed, not used beside vLLM")
    else:
        missing = "the stand-in model" if has_llama else "llama.cpp (xllamacpp)"
        yield Check("stand-in", "failed", f"{missing} is not installed, so nothing can be served here", "make setup")


def _python(version: tuple[int, ...]) -> Check:
    text = f"Python {platform.python_version()}"
    if version >= PYTHON:
        return Check("Python", "ok", text)
    return Check("Python", "failed", f"{text} is older than {'.'.join(map(str, PYTHON))}", "make setup")


def _folder() -> Check:
    folder = state_folder()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if os.access(there, os.W_OK | os.X_OK):
        return Check("state", "ok", f"servers keep their records in {folder}")
    return Check("state", "failed", f"{there} can't be written, where servers keep their records", f"ls -ld {there}")


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def open_account(timeout_s: float) -> LocalAccount:
    """This machine."""
    return LocalAccount(LocalMachine())
