"""The keys of a local server, in a file of its folder that only its owner reads."""

from __future__ import annotations

from pathlib import Path

from serving.guard import API_KEY, PREVIOUS_KEY

FILE = "keys"


def keys_text(key: str, previous_key: str) -> str:
    """The file's text: the environment variables of the guard, one a line."""
    return f"{API_KEY}={key}\n{PREVIOUS_KEY}={previous_key or key}\n"


def read_keys(folder: Path) -> tuple[str, str]:
    """The key, and the one that counts too.

    Raises:
        FileNotFoundError: the folder has none.
    """
    found = {
        name: value for name, _, value in (line.partition("=") for line in (folder / FILE).read_text().splitlines())
    }
    return found[API_KEY], found[PREVIOUS_KEY]
