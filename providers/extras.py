"""How a part that is optional is installed: platforms' SDKs are large, so each is an extra of its own."""

from __future__ import annotations


def install(extra: str) -> str:
    """The command that installs an extra of pyproject.toml, from the checkout's folder, with the pinned versions."""
    return f"`.venv/bin/pip install -c constraints.txt -e '.[{extra}]'`"
