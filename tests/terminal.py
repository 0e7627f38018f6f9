"""A real terminal of 80 columns: what commands draw there, and what is typed into them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

COLUMNS, LINES = 80, 24
needed = pytest.mark.skipif(not shutil.which("tmux"), reason="no tmux")


class Terminal:
    """One tmux session with a shell command in it, which stays on screen when it has ended."""

    def __init__(self, socket: Path) -> None:
        self._tmux = ["tmux", "-S", str(socket)]

    def screen(self) -> str:
        """What is shown now, lines as they are broken."""
        told = subprocess.run([*self._tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True)
        return told.stdout

    def until(self, *texts: str) -> str:
        """The screen once all of these are on it at the same time. What runs there runs in real time."""
        shown = ""
        for _ in range(600):
            shown = self.screen()
            if all(text in shown for text in texts):
                return shown
            time.sleep(0.05)
        raise AssertionError(f"{texts} are not shown together; the last screen:\n{shown}")

    def type(self, *keys: str) -> None:
        """Send keys by tmux's names; other words as they are."""
        subprocess.run([*self._tmux, "send-keys", *keys], check=True)

    def end(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False)


@contextmanager
def terminal(folder: Path, command: Sequence[str], env: Mapping[str, str]) -> Iterator[Terminal]:
    """Runs a command in a terminal; `ended with N` is on the screen once it has."""
    script = folder / "in-terminal.sh"
    words = " ".join(f"'{word}'" for word in command)
    lines = [f"export {name}='{value}'" for name, value in env.items()]
    # Without the trap, the shell ends with what it has started.
    lines += [f"cd {folder}", "unset COLUMNS", "trap : INT", words, "echo ended with $?", "exec cat"]
    script.write_text("\n".join(lines))
    # Each has a server of its own: one that is ending would take the next session down with it.
    shown = Terminal(Path(tempfile.mkdtemp(dir=folder)) / "tmux")
    start = [*shown._tmux, "new-session", "-d", "-x", str(COLUMNS), "-y", str(LINES), "sh", str(script)]
    subprocess.run(start, check=True)
    try:
        yield shown
    finally:
        shown.end()
