"""The pages of docs/ as a site, and those of them that are written from code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from engine import ROOT

from serving.cost import estimate
from serving.failures import RULES
from serving.prices import snapshot
from serving.report import UNITS, dollars, shown_quantity, unit_dollars
from serving.snapshot import snapshot_offers
from serving.spec import DeploymentSpec, ScalingSpec
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


def test_the_worked_example_is_what_is_estimated() -> None:
    page = (ROOT / "docs/cost.md").read_text()
    spec = DeploymentSpec.model_validate(
        {"scaling": {"min": 0, "max": 3, "idle_timeout_s": 60}, "usage": {"requests_per_day": 1000}}
    )
    (offer,) = (
        one for one in snapshot_offers(snapshot(), "runpod") if (one.kind, one.gpu) == ("serverless", "RTX 4000 Ada")
    )
    bill = estimate(spec, offer)
    for line in bill.lines:
        assert line.quantity and line.rate.unit_price
        amount, unit = shown_quantity(line.quantity.expected), UNITS[line.rate.unit]
        price = f"{unit_dollars(line.rate.unit_price)}/{unit}"
        assert f"| {line.rate.meter} | {amount} {unit} | {price} | {dollars(line.monthly)} |" in page
    low, high = dollars(bill.span.low), dollars(bill.span.high)
    assert f"**{dollars(bill.monthly)} a month**, {low} to {high}" in page
    awake = spec.model_copy(update={"scaling": ScalingSpec()})
    assert f"never sleeps costs {dollars(estimate(awake, offer).monthly)}" in page


@pytest.mark.heavy
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
