"""The shape of the model that a spec names: from the catalogue, a given `config.json`, or one that was downloaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from serving import NAMESPACE
from serving.models import Model, UnknownModel, UnsupportedModel, model, parse_config
from serving.spec import ModelSpec, Problem, SpecError


def model_shape(asked: ModelSpec) -> Model:
    """The shape of `asked.name`. A config that is named explicitly wins over the catalogue.

    Raises:
        SpecError: when nothing describes the model, or what does can't be understood.
    """
    if asked.config:
        return _parse(asked, Path(asked.config).expanduser(), "config")
    try:
        return model(asked.name)
    except UnknownModel as error:
        if path := _downloaded(asked):
            return _parse(asked, path, "name")
        file = "config.json"
        fix = (
            f"{error} Set `model.config` to its {file} (from huggingface.co/{asked.name}/blob/main/{file}), "
            "or serve one of the catalogue: `vllm-anywhere fit --list`"
        )
        raise SpecError([Problem(f"{NAMESPACE}:model.name", asked.name, fix)]) from None


def _parse(asked: ModelSpec, path: Path, field: str) -> Model:
    key, value = f"{NAMESPACE}:model.{field}", str(getattr(asked, field))
    try:
        config = TypeAdapter(dict[str, Any]).validate_json(path.read_bytes())
        return parse_config(asked.name, config)
    except UnsupportedModel as error:
        raise SpecError([Problem(key, value, f"{error}, so its fit can't be told")]) from None
    except OSError as error:
        raise SpecError([Problem(key, value, f"{path} can't be read: {error.strerror}")]) from None
    except ValueError:
        raise SpecError([Problem(key, value, f"{path} is not a JSON object")]) from None


def _downloaded(asked: ModelSpec) -> Path | None:
    """The config of the model's asked revision, or main's, in Hugging Face's cache; None where it is not there."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    folder = cache / f"models--{asked.name.replace('/', '--')}"
    revision = asked.revision or "main"
    try:
        commit = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    except OSError:
        commit = revision
    wanted = folder / "snapshots" / commit / "config.json"
    return wanted if wanted.is_file() else None
