"""Fixtures that more than one test file needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest
from engine import Project
from hypothesis import settings

# How long an example takes is a matter of what else the machine does.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first: with short ones at the end, no core is left waiting for another's last story."""
    items.sort(key=lambda item: item.get_closest_marker("engine") is None)


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


@pytest.fixture(scope="session", autouse=True)
def _one_public_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every HTTP client reads the public CAs when it is made, which takes longer than most tests. One will do here."""
    first, end, _ = Path(certifi.where()).read_text(encoding="utf-8").partition("-----END CERTIFICATE-----\n")
    one = tmp_path_factory.mktemp("authorities") / "one.pem"
    one.write_text(first + end, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(certifi, "where", lambda: str(one))
        yield


@pytest.fixture(autouse=True)
def _one_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide in every terminal that the tests are run from."""
    monkeypatch.setenv("COLUMNS", "120")
