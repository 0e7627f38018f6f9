"""Where the shape of a model comes from when the catalogue lacks it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_models import QWEN3_4B

from providers.model_shape import model_shape
from serving.spec import ModelSpec, SpecError

OWN = "somebody/own"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model's folder in an empty cache of Hugging Face's."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return tmp_path / "models--somebody--own"


def keep(cache: Path, commit: str, **changes: object) -> None:
    folder = cache / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**QWEN3_4B, **changes}))


def test_a_downloaded_model_needs_no_config(cache: Path) -> None:
    keep(cache, "0a1b", num_hidden_layers=12)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0a1b\n")
    assert model_shape(ModelSpec(name=OWN, served_name="own")).layers == 12


def test_the_revision_that_is_asked_for_is_the_one_that_is_read(cache: Path) -> None:
    keep(cache, "0a1b", num_hidden_layers=12)
    keep(cache, "2c3d", num_hidden_layers=24)
    assert model_shape(ModelSpec(name=OWN, served_name="own", revision="2c3d")).layers == 24


def test_what_was_never_downloaded_is_asked_for_by_the_key_that_takes_it(cache: Path) -> None:
    with pytest.raises(SpecError, match=r"vllm-anywhere:model\.name.*Set `model\.config` to its config\.json"):
        model_shape(ModelSpec(name=OWN, served_name="own"))


def test_a_config_that_is_given_wins_over_the_catalogue(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**QWEN3_4B, "num_hidden_layers": 12}))
    assert model_shape(ModelSpec(name="Qwen/Qwen3-4B-AWQ", config=str(config))).layers == 12
    with pytest.raises(SpecError, match=r"vllm-anywhere:model\.config.*can't be read: No such file"):
        model_shape(ModelSpec(name=OWN, served_name="own", config=str(tmp_path / "none.json")))
