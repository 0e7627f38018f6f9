"""The pages of docs/ as a site, and those of them that are written from code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from engine import ROOT

from serving.failures import RULES
from serving.spec import DeploymentSpec
from tools.heeded import OTHERS
from tools.pages import PAGES, known_failures, written

TRANSLATED = ("model", "engine", "hardware", "placement", "scaling")


@pytest.mark.parametrize("page", PAGES)
def test_what_is_generated_of_a_page_is_what_the_code_says_now(page: str) -> None:
    text = (ROOT / page).read_text()
    assert text == written(page, text), "run `make docs`"


def test_every_key_that_platforms_translate_is_tried_on_each() -> None:
    keys = {
        f"{part}.{name}" for part in TRANSLATED for name in DeploymentSpec.model_fields[part].annotation.model_fields
    }
    # A path of a file changes nothing as long as there is no such file.
    assert set(OTHERS) == keys - {"model.config"}


def test_every_rule_of_failures_is_on_the_page_with_what_helps() -> None:
    page = known_failures()
    assert page.count("### ") == page.count("What helps: ") == len(RULES)
    assert "{" not in page


def test_the_site_builds_without_a_broken_link_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "--fresh-env"]
    done = subprocess.run(
        [*build, "-d", str(tmp_path / "trees"), str(ROOT / "docs"), str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text()
        assert 'src="http' not in text and 'rel="stylesheet" href="http' not in text, page
