"""Fixtures that more than one test file needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import Project


@pytest.fixture(scope="session")
def pulumi_cli() -> str:
    """The Pulumi CLI that `make test` has put on PATH."""
    found = shutil.which("pulumi")
    assert found, "no pulumi on PATH: run `make test`, or `source tools/env.sh` first"
    return found


@pytest.fixture
def project(tmp_path: Path, pulumi_cli: str) -> Iterator[Project]:
    """A fresh stack; whatever it left running is ended afterwards."""
    project = Project.create(tmp_path, pulumi_cli)
    yield project
    project.close()


@pytest.fixture(autouse=True)
def _one_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide in every terminal that the tests are run from."""
    monkeypatch.setenv("COLUMNS", "120")
