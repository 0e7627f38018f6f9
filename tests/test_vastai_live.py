"""One deployment on Vast.ai itself, for people with a key: `pytest -m live tests/test_vastai_live.py`.

It rents one machine of at most $0.40 an hour for as long as the story takes, and stops at $1 for machines that fail.
Nobody has run it yet.
"""

from __future__ import annotations

import os

import pytest
from engine import Project
from test_vastai_engine import question

pytestmark = [pytest.mark.engine, pytest.mark.live]


def test_a_model_answers_on_a_rented_machine_and_nothing_is_left(project: Project) -> None:
    project.env["VAST_API_KEY"] = os.environ["VAST_API_KEY"]
    for key, value in {
        "provider": "vastai",
        "hardware.gpus[0]": "RTX 3090",
        "hardware.gpus[1]": "RTX 4090",
        "placement.tier": "any",
        "ready.timeout_s": "1200",
        "vastai.max_hourly_usd": "0.40",
        "vastai.waste_usd": "0.50",
        "vastai.attempts": "2",
    }.items():
        project.config(key, value)
    try:
        _long(project, "up")
        assert question(project.outputs())
    finally:
        _long(project, "destroy")


def _long(project: Project, command: str) -> None:
    """A command that may take as long as two machines that fail."""
    process = project.start(command, "--yes", "--skip-preview", "-s", "test")
    told, _ = process.communicate(timeout=2 * 3600)
    assert process.returncode == 0, told
