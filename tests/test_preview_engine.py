"""What `pulumi preview` shows and refuses before anything is rented, under the real engine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from engine import Project

from ops.comment import Message, markdown, report_in

pytestmark = pytest.mark.engine


def as_data(project: Project) -> tuple[dict[str, Any], dict[str, Any]]:
    """A preview for programs, and the report in it."""
    preview = json.loads(project.preview("--json", VLLM_ANYWHERE_REPORT="json"))
    report = report_in([Message.model_validate(one) for one in preview["diagnostics"]])
    assert report
    return preview, report


def test_a_preview_shows_cost_change_and_what_it_would_cost_elsewhere(project: Project) -> None:
    text = project.preview()
    assert "a month    $0.00 (730 hours)" in text
    assert "change     +$0.00/month: nothing runs now" in text
    assert "elsewhere  runpod: " in text
    assert "\x1b" not in text


def test_the_change_is_counted_against_what_runs(project: Project) -> None:
    project.config("provider", "fake")
    project.up()
    running = project.outputs()["cost"]
    assert running["monthly_usd"] == "365.00"
    assert len(running["alternatives"]) == 3
    assert "change     +$0.00/month (+0 %) against fake, 1x L4, which runs now" in project.preview()
    project.config("provider", "local")
    preview, report = as_data(project)
    assert report["change"]["monthly_usd"] == "-365.00"
    assert report["running"] == {"provider": "fake", "monthly_usd": "365.00"}
    comment = markdown(report, preview["changeSummary"])
    assert comment.startswith("### local: $0.00 a month, -$365.00/month (-100 %) against fake")
    assert "| **total** |" in comment


def test_a_second_up_of_the_same_spec_changes_no_output(project: Project) -> None:
    project.config("provider", "fake")
    project.up()
    before = project.outputs()
    preview = project.preview()
    assert "unchanged" in preview
    assert "Outputs" not in preview
    project.up()
    assert project.outputs() == before


@pytest.mark.parametrize("command", ["preview", "up"])
def test_over_its_budget_nothing_is_registered(project: Project, command: str) -> None:
    project.config("provider", "fake")
    project.config("budget.monthly_usd", "100")
    text = project.preview(ok=False) if command == "preview" else project.up(ok=False)
    assert "nothing was created" in text
    assert "vllm-anywhere:budget.monthly_usd = 100: the plan costs $365.00 a month, $265.00 too much" in text
    assert "most of it is GPU of L4, $365.00 a month" in text
    assert "Within it" in text or "Nothing that fits costs so little" in text
    assert project.resources("vllm-anywhere:fake:Instance") == []
    assert project.resources("vllm-anywhere:index:ApiKey") == []


def test_a_region_that_is_nowhere_fails_against_its_key(project: Project) -> None:
    project.config("placement.regions[0]", "atlantis")
    text = project.preview(ok=False)
    assert "vllm-anywhere:placement.regions" in text
    assert "atlantis" in text


def test_a_model_that_nothing_describes_is_refused_where_a_gpu_is_rented(project: Project) -> None:
    project.config("provider", "fake")
    project.config("model.name", "somebody/unheard-of")
    text = project.preview(ok=False)
    assert "vllm-anywhere:model.name = somebody/unheard-of" in text
    assert "model.config" in text


def test_a_wrong_price_file_fails_before_anything_is_registered(project: Project) -> None:
    own = project.folder / "own.csv"
    own.write_text("platform,kind\nrunpod,pod\n")
    text = project.up(ok=False, VLLM_ANYWHERE_PRICES=str(own))
    assert f"the price file of VLLM_ANYWHERE_PRICES can't be used: {own}" in text
    assert "Traceback" not in text
    assert project.resources("vllm-anywhere:index:ApiKey") == []


def test_the_users_hugging_face_token_reaches_a_server_as_a_secret(project: Project) -> None:
    project.config("provider", "runpod")
    project.pulumi("config", "set", "-s", "test", "--secret", "vllm-anywhere:hf_token", "hf_very-secret")
    preview = project.preview("--json", VLLM_ANYWHERE_OFFLINE="1")
    assert "hf_very-secret" not in preview
    (pod,) = [step for step in json.loads(preview)["steps"] if step["urn"].endswith("runpod:Pod::server")]
    assert pod["newState"]["inputs"]["hfToken"] == "[secret]"
