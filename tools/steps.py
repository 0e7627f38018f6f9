"""Runs the long steps of setting up: one line that says which step and for how long, the log's tail when it fails.

Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

TAIL_LINES = 25


@dataclass(frozen=True)
class StepResult:
    """`status` is the exit status, None when the time limit ended it; `output` is stdout and stderr together."""

    status: int | None
    output: str

    @property
    def ok(self) -> bool:
        return self.status == 0

    def tail(self, lines: int = TAIL_LINES) -> str:
        return "\n".join(self.output.rstrip().splitlines()[-lines:])


class Progress:
    """One step's line on `stream`: redrawn in place in a terminal, a new line every `every_s` seconds in a pipe.

    A step of less than `quiet_s` leaves no trace.
    """

    def __init__(
        self,
        label: str,
        *,
        stream: TextIO | None = None,
        every_s: float = 10.0,
        quiet_s: float = 1.0,
        now: float | None = None,
    ) -> None:
        self._label = label
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._every_s = every_s
        self._started = time.monotonic() if now is None else now
        self._next_s = quiet_s
        self._shown = False

    def tick(self, now: float | None = None) -> None:
        elapsed = (time.monotonic() if now is None else now) - self._started
        if elapsed < self._next_s:
            return
        if self._live:
            self._stream.write(f"\r\033[K{self._label} ({elapsed:.0f} s)")
        else:
            self._stream.write(f"{self._label} ({elapsed:.0f} s)\n")
        self._stream.flush()
        self._shown = True
        self._next_s = elapsed + (1.0 if self._live else self._every_s)

    def done(self, outcome: str, now: float | None = None) -> None:
        elapsed = (time.monotonic() if now is None else now) - self._started
        if not self._shown:
            return
        start = "\r\033[K" if self._live else ""
        self._stream.write(f"{start}{self._label}: {outcome} ({elapsed:.0f} s)\n")
        self._stream.flush()


def run_step(
    label: str,
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    limit_s: float | None = None,
    progress: Progress | None = None,
) -> StepResult:
    """Run `argv` with its output kept aside. Raises OSError when it can't be started."""
    progress = progress or Progress(label)
    started = time.monotonic()
    # A file and not a pipe: what the command leaves running would hold a pipe open.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=cwd, env=env
        )
        status: int | None = None
        try:
            while status is None:
                if limit_s is not None and time.monotonic() - started > limit_s:
                    break
                try:
                    status = process.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    progress.tick()
        except KeyboardInterrupt:
            progress.done("interrupted")
            raise
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        log.seek(0)
        output = log.read()
    progress.done("done" if status == 0 else "gave up" if status is None else "failed")
    return StepResult(status, output)


def interruptible(main: Callable[[], int]) -> int:
    """The status of `main`; that of a program ended by Ctrl-C, after one line, when it is interrupted."""
    try:
        return main()
    except KeyboardInterrupt:
        print("Interrupted; run the same command to go on.", file=sys.stderr)
        return 130


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="steps.py", description="Run one step of a recipe with progress.")
    parser.add_argument("label")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    parsed = parser.parse_args(arguments)
    result = run_step(parsed.label, parsed.command)
    if not result.ok:
        print(f"{parsed.label} failed. The last lines it wrote:\n{result.tail()}", file=sys.stderr)
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(interruptible(main))
