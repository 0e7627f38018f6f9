"""What RunPod's own package says of the jobs and workers of an endpoint."""

from __future__ import annotations

import pytest

from providers.base import load_waiting
from providers.runpod.jobs import summary, waiting_on
from tests.emulators.runpod import KEY, RunPodEmulator

pytest.importorskip("runpod")


def test_jobs_and_workers_are_told_in_a_few_words() -> None:
    health = {"jobs": {"inQueue": 1, "inProgress": 0}, "workers": {"initializing": 2, "ready": 0, "idle": 1}}
    assert summary(health) == "1 job in the queue; workers: 2 initializing, 1 idle"
    assert summary({}) == "0 jobs in the queue; workers: none"


def test_an_endpoint_is_asked_through_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with RunPodEmulator() as emulator:
        monkeypatch.setenv("RUNPOD_API_KEY", KEY)
        monkeypatch.setattr("runpod.endpoint_url_base", emulator.job_url)
        # A pod, or nothing at all, has no jobs: that is nothing to say, not an error.
        assert waiting_on("no-such-endpoint") == ""
        assert emulator.called("GET", "/jobs/no-such-endpoint/health")


def test_platforms_without_jobs_have_nothing_to_say() -> None:
    assert load_waiting("local")("server") == ""
