"""One pass of a Pulumi program: its environment, and what its author sees when it fails.

Installed beside `language_host.py`, which imports it after it has started to serve: the SDK takes its time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import runpy
import sys
import traceback
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import grpc
import pulumi
from pulumi.runtime import reset_options, run_in_stack, set_all_config
from pulumi.runtime.proto import language_pb2

# Outputs that nobody awaits are normal in a program that stops early.
logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def run_pass(request: language_pb2.RunRequest, engine_address: str) -> bool:
    """Run the program of a request. False when it failed, which then has been logged, once."""
    reset_options(
        project=request.project,
        stack=request.stack,
        root_directory=request.info.root_directory,
        parallel=request.parallel,
        engine_address=engine_address,
        monitor_address=request.monitor_address,
        preview=request.dryRun,
        organization=request.organization or "organization",
    )
    set_all_config(dict(request.config), list(request.configSecretKeys))
    message = run_program(
        Path(request.info.program_directory),
        entry_point=request.info.entry_point,
        root=Path(request.info.root_directory),
        arguments=list(request.args),
        threads=max(request.parallel, 1) * 4,
    )
    return message is None


def run_program(directory: Path, *, entry_point: str, root: Path, arguments: list[str], threads: int) -> str | None:
    """Run one pass; None when it went well, else the message that has been logged (once)."""
    program = directory / entry_point
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(max_workers=threads))
    try:
        with _program_environment(directory, [str(program), *arguments]), _modules_forgotten(root):
            asyncio.set_event_loop(loop)
            loop.run_until_complete(run_in_stack(lambda: _execute(program)))
    except BaseException as error:
        message = failure_message(error, root)
        if message is not None:
            pulumi.log.error(message)
        return message
    finally:
        _close(loop)
        sys.stdout.flush()
        sys.stderr.flush()
    return None


def failure_message(error: BaseException, root: Path) -> str | None:
    """What the user sees: only the message of an expected failure, else the traceback from their own code on.

    None for what is no failure of the program: a clean exit, or an engine that has already gone.
    """
    if isinstance(error, pulumi.RunError):
        return str(error)
    if isinstance(error, SystemExit):
        if error.code is None or error.code == 0:
            return None
        return error.code if isinstance(error.code, str) else f"The program exited with status {error.code}."
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return None
        return f"The engine refused a request: {error.details()}"
    frames = "".join(traceback.format_exception(type(error), error, _from_user_code(error, root)))
    return f"The program failed with an unhandled exception:\n{frames}"


def _from_user_code(error: BaseException, root: Path) -> TracebackType | None:
    # A program that doesn't parse has no frames yet; the error itself names its file and line.
    parsing = isinstance(error, SyntaxError) and _is_under(error.filename, root)
    whole = tb = error.__traceback__
    while tb is not None:
        if _is_under(tb.tb_frame.f_code.co_filename, root):
            return tb
        tb = tb.tb_next
    return None if parsing else whole


def _is_under(filename: str | None, root: Path) -> bool:
    path = Path(filename) if filename else None
    return path is not None and path.is_relative_to(root) and not path.is_relative_to(sys.prefix)


def _execute(program: Path) -> None:
    if program.is_dir() and not (program / "__main__.py").is_file():
        raise pulumi.RunError(f"There is no Python program in {program}: it has no __main__.py.")
    runpy.run_path(str(program), run_name="__main__")


@contextmanager
def _program_environment(directory: Path, argv: list[str]) -> Generator[None]:
    before = Path.cwd(), sys.argv, list(sys.path)
    os.chdir(directory)
    sys.argv = argv
    try:
        yield
    finally:
        os.chdir(before[0])
        sys.argv, sys.path[:] = before[1], before[2]


@contextmanager
def _modules_forgotten(root: Path) -> Generator[None]:
    """Forget the project's own modules after a pass: one that declares resources when imported must do so again."""
    try:
        yield
    finally:
        for name, module in list(sys.modules.items()):
            if name != "__main__" and _is_under(getattr(module, "__file__", None), root):
                del sys.modules[name]


def _close(loop: asyncio.AbstractEventLoop) -> None:
    # A program that fails leaves tasks behind; awaited here, they don't complain when they are collected.
    pending = asyncio.all_tasks(loop)
    for task in pending:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
    asyncio.set_event_loop(None)
    loop.close()
