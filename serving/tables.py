"""The tables of facts: those in `serving/data`, and those that a platform's folder brings along.

A platform's folder may hold `data/gpus.csv` (the names it rents GPUs under), `data/prices.csv`, `data/machines.csv` and
`data/places.csv`, with the columns of the tables here. They are read as data beside the code, and no code of a platform
is imported: so a new platform is one folder, and nothing here knows its name.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable


def data_text(name: str) -> str:
    """The text of a file of `serving/data`."""
    return (files("serving") / "data" / name).read_text(encoding="utf-8")


@cache
def additions(name: str) -> tuple[tuple[str, str], ...]:
    """The tables of that name in platforms' folders, in the order of the folders: (file name, text)."""
    return tuple((file, text) for folder, text in _found(name) if (file := f"{folder}/{name}"))


def rows(name: str) -> list[dict[str, str]]:
    """All rows of a table, those of platforms' folders after the shared ones."""
    texts = [data_text(name), *(text for _, text in additions(name))]
    return [row for text in texts for row in csv.DictReader(text.splitlines())]


def _found(name: str) -> Iterator[tuple[str, str]]:
    for folder in sorted(files("providers").iterdir(), key=lambda one: one.name):
        file = folder / "data" / name
        if _is_file(file):
            yield folder.name, file.read_text(encoding="utf-8")


def _is_file(file: Traversable) -> bool:
    try:
        return file.is_file()
    except NotADirectoryError:
        return False
