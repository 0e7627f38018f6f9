"""How commands print."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from ops.text import show

CURE = "set placement.regions: [eu]; pip install -e '.[modal]'"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()], ids=["pipe", "terminal"])
def test_brackets_are_printed_as_they_are_and_are_no_tags(out: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    table = Table(CURE, title=CURE)
    table.add_row(CURE)
    show([CURE, table], out)
    assert out.getvalue().count("[eu]") == out.getvalue().count(".[modal]") == 4
