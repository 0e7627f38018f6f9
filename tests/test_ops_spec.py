"""Reading a stack's spec from its file, with changes from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.spec import read_spec
from ops.stack import OpsError

STACK = """
config:
  vllm-anywhere:provider: fake
  vllm-anywhere:model: {max_len: 4096}
  vllm-anywhere:hf_token:
    secure: v1:abc
  gcp:project: mine
"""


@pytest.fixture
def stacks(tmp_path: Path) -> Path:
    (tmp_path / "Pulumi.one.yaml").write_text(STACK)
    return tmp_path


def test_a_stack_file_is_the_spec_and_its_secrets_are_left_alone(stacks: Path) -> None:
    spec = read_spec("one", folder=stacks)
    assert (spec.provider, spec.model.max_len) == ("fake", 4096)


def test_no_stack_means_the_defaults(stacks: Path) -> None:
    assert read_spec("", folder=stacks).provider == "local"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["model.max_len=16384"], 16384),
        (["vllm-anywhere:model.max_len=16384"], 16384),
        (["hardware.gpus=[L4, T4]"], 4096),
    ],
)
def test_settings_change_the_spec_for_one_answer(stacks: Path, settings: list[str], expected: int) -> None:
    assert read_spec("one", settings, stacks).model.max_len == expected


def test_the_provider_is_a_setting_of_its_own(stacks: Path) -> None:
    assert read_spec("one", ["provider=local"], stacks).provider == "local"


@pytest.mark.parametrize("setting", ["", "model", "model=4", "=4", "max_len"])
def test_a_setting_without_key_or_value_is_refused_with_an_example(stacks: Path, setting: str) -> None:
    with pytest.raises(OpsError, match=r"model\.max_len=16384"):
        read_spec("one", [setting], stacks)


def test_a_wrong_setting_names_its_key(stacks: Path) -> None:
    with pytest.raises(OpsError, match=r"vllm-anywhere:model\.max_len = -1"):
        read_spec("one", ["model.max_len=-1"], stacks)


def test_an_unknown_stack_names_those_there_are(stacks: Path) -> None:
    with pytest.raises(OpsError, match=r"Pulumi\.two\.yaml; there are: one"):
        read_spec("two", folder=stacks)


def test_a_broken_stack_file_is_named(stacks: Path) -> None:
    (stacks / "Pulumi.two.yaml").write_text("config: [")
    with pytest.raises(OpsError, match=r"Pulumi\.two\.yaml can't be read"):
        read_spec("two", folder=stacks)


@pytest.mark.parametrize("text", ["config: [a]", "config"])
def test_a_stack_file_whose_config_is_no_map_is_named(stacks: Path, text: str) -> None:
    (stacks / "Pulumi.two.yaml").write_text(text)
    with pytest.raises(OpsError, match=r"Pulumi\.two\.yaml can't be read: its `config` is no map"):
        read_spec("two", folder=stacks)


def test_a_section_that_the_cli_wrote_as_text_can_be_changed_like_any_other(stacks: Path) -> None:
    (stacks / "Pulumi.two.yaml").write_text(
        """config: {"vllm-anywhere:model": '{"max_len": 4096, "served_name": "m"}'}"""
    )
    spec = read_spec("two", ["model.max_len=8192"], stacks)
    assert (spec.model.max_len, spec.model.served_name) == (8192, "m")


def test_a_setting_below_a_value_is_refused(stacks: Path) -> None:
    with pytest.raises(OpsError, match=r"--set model\.max_len\.x=1: max_len is 4096"):
        read_spec("one", ["model.max_len.x=1"], stacks)


def test_a_date_is_a_text_like_any_other(stacks: Path) -> None:
    assert read_spec("one", ["model.served_name=2026-11-21"], stacks).model.served_name == "2026-11-21"
