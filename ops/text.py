"""How commands print: tables for people, plain in a pipe, JSON for programs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, RenderableType

PIPE_WIDTH = 120
"""Columns of a table that nobody looks at directly; `COLUMNS` changes it."""


def show(parts: Sequence[RenderableType], out: TextIO | None = None) -> None:
    """Print renderables: in colour as wide as the terminal, or plain and without trailing blanks in a pipe.

    Texts are taken as they are: `placement.regions: [eu]` is no tag of Rich's.
    """
    target: TextIO = sys.stdout if out is None else out
    if target.isatty():
        console = Console(file=target, highlight=False, markup=False)
        for part in parts:
            console.print(part)
        return
    width = shutil.get_terminal_size((PIPE_WIDTH, 24)).columns
    console = Console(file=target, highlight=False, markup=False, width=width, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), file=target)


def short_path(path: Path) -> str:
    """A path as it is shortest to type from here: absolute, relative, or below the home folder."""
    ways = [str(path), os.path.relpath(path)]
    if path.is_relative_to(Path.home()):
        ways.append(f"~/{path.relative_to(Path.home())}")
    return min(ways, key=len)


def show_json(facts: Any, out: TextIO | None = None) -> None:
    """Print one JSON document, keys in their own order."""
    print(json.dumps(facts, indent=2, ensure_ascii=False), file=out or sys.stdout)
