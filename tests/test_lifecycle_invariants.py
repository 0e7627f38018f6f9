"""Nothing paid for is lost, doubled or forgotten, whichever call fails in whichever way.

`Invariants` is written against a platform's few verbs; each platform subclasses it with its own cloud.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from providers.base import Interrupted, PlatformError
from providers.fake.client import FakeCloud
from providers.fake.resources import FakeInstance, InstanceInputs
from providers.native import Context

FAULTS = ("timeout", "lost", "dropped", "garbage")
LABEL = "shop/dev/server/1"


def context(pause: Any = lambda seconds: False) -> Context:
    """A context whose waits take no time."""
    ticks = itertools.count()
    return Context(
        "urn", lambda text: None, pause, lambda: float(next(ticks)), lambda: datetime(2026, 1, 1, tzinfo=UTC)
    )


class Invariants(ABC):
    """What must hold on every platform."""

    creating: tuple[str, ...]
    """The wire calls of a create."""
    deleting: tuple[str, ...]
    """The wire calls of a delete."""

    @abstractmethod
    def cloud(self, faults: dict[str, str]) -> Any:
        """An empty cloud whose next use of each named call fails once, that way."""

    @abstractmethod
    def create(self, cloud: Any, where: Context) -> str:
        """Create under `LABEL`; the id."""

    @abstractmethod
    def delete(self, cloud: Any, where: Context, id: str) -> None:
        """Delete, and wait until it is gone."""

    @abstractmethod
    def existing(self, cloud: Any) -> list[str]:
        """The ids of everything that exists, whatever its label."""

    def faults(self, calls: tuple[str, ...]) -> list[dict[str, str]]:
        return [{call: fault} for call in calls for fault in FAULTS]

    def test_after_any_failure_of_create_exactly_one_exists(self) -> None:
        for faults in self.faults(self.creating):
            cloud = self.cloud(faults)
            try:
                id = self.create(cloud, context())
            except PlatformError:
                id = self.create(cloud, context())
            assert self.existing(cloud) == [id], faults

    def test_after_any_failure_of_delete_nothing_exists(self) -> None:
        for faults in self.faults(self.deleting):
            cloud = self.cloud({})
            id = self.create(cloud, context())
            cloud.fail(faults)
            try:
                self.delete(cloud, context(), id)
            except PlatformError:
                self.delete(cloud, context(), id)
            assert self.existing(cloud) == [], faults

    def test_two_left_under_one_label_become_one(self) -> None:
        cloud = self.cloud({})
        self.leave(cloud)
        self.leave(cloud)
        id = self.create(cloud, context())
        assert self.existing(cloud) == [id]

    def test_what_an_interrupted_create_left_is_adopted(self) -> None:
        cloud = self.cloud({})
        left = self.leave(cloud)
        assert self.create(cloud, context()) == left

    def test_deleting_what_is_gone_is_success(self) -> None:
        cloud = self.cloud({})
        id = self.create(cloud, context())
        self.delete(cloud, context(), id)
        self.delete(cloud, context(), id)
        assert self.existing(cloud) == []

    @abstractmethod
    def leave(self, cloud: Any) -> str:
        """Put what a finished create call leaves under `LABEL` into the cloud, behind the provider's back; the id."""


class TestFake(Invariants):
    creating = ("list", "create")
    deleting = ("destroy", "get")

    def cloud(self, faults: dict[str, Any]) -> FakeCloud:
        return FakeCloud(faults=faults)

    def create(self, cloud: FakeCloud, where: Context) -> str:
        inputs = InstanceInputs(gpu="L4", model="m", api_key=SecretStr("k"), label=LABEL)
        return FakeInstance().create_in(cloud, where, inputs).id

    def delete(self, cloud: FakeCloud, where: Context, id: str) -> None:
        FakeInstance().delete_in(cloud, where, id)

    def existing(self, cloud: FakeCloud) -> list[str]:
        return [one.id for one in cloud.all()]

    def leave(self, cloud: FakeCloud) -> str:
        return cloud.create(LABEL, "L4", "m").id

    def test_a_list_that_fails_is_never_taken_for_empty(self) -> None:
        cloud = self.cloud({})
        left = self.leave(cloud)

        def broken(label: str) -> Any:
            raise PlatformError("the list call failed")

        listed, cloud.labelled = cloud.labelled, broken  # pyright: ignore
        with pytest.raises(PlatformError, match="the list call failed"):
            self.create(cloud, context())
        cloud.labelled = listed  # pyright: ignore
        assert self.existing(cloud) == [left]

    def test_what_does_not_fit_any_more_is_replaced_not_adopted(self) -> None:
        cloud = self.cloud({})
        old = cloud.create(LABEL, "T4", "m").id
        new = self.create(cloud, context())
        assert new != old
        assert self.existing(cloud) == [new]

    def test_a_create_that_left_no_trace_says_what_may_be_billed(self) -> None:
        with pytest.raises(PlatformError) as caught:
            self.create(self.cloud({"create": "timeout"}), context())
        for words in (LABEL, "may still appear", "be billed", "`pulumi up`"):
            assert words in str(caught.value)

    def test_a_cancelled_wait_ends_at_once_and_says_what_may_be_billed(self) -> None:
        cloud = self.cloud({"create": "timeout"})
        with pytest.raises(Interrupted, match=rf"^cancelled: .*{LABEL}, but something may still appear"):
            self.create(cloud, context(pause=lambda seconds: True))

    def test_a_delete_that_never_takes_effect_keeps_the_id(self) -> None:
        cloud = self.cloud({})
        id = self.create(cloud, context())
        cloud.destroy = lambda id: None  # pyright: ignore
        with pytest.raises(PlatformError, match=f"{id} was deleted but still exists, and may be billed"):
            self.delete(cloud, context(), id)

    @pytest.mark.parametrize("call", ["list", "create", "get", "destroy"])
    def test_a_process_killed_in_any_call_leaves_what_the_next_one_finds(self, call: str, tmp_path: Path) -> None:
        memory = tmp_path / "cloud.json"
        story = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from test_lifecycle_invariants import TestFake, context
from providers.fake.client import FakeCloud
cloud = FakeCloud(Path({str(memory)!r}), {json.dumps({call: "kill"})})
id = TestFake().create(cloud, context())
TestFake().delete(cloud, context(), id)
"""
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        killed = subprocess.run([sys.executable, "-c", story], env=env, check=False)
        assert killed.returncode == 9
        cloud = FakeCloud(memory)
        id = self.create(cloud, context())
        assert self.existing(cloud) == [id]
        self.delete(cloud, context(), id)
        assert self.existing(cloud) == []
