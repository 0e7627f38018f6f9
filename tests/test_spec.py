"""The shared spec: what a stack file may say, and what it is told when it can't."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.schema import stack_file_schema
from providers.base import platform_names
from providers.gcp.options import GcpOptions
from serving.config import parse_part, parse_spec
from serving.spec import BudgetSpec, DeploymentSpec, Problem, SpecError

ROOT = Path(__file__).resolve().parents[1]
PLATFORMS = ["local", "runpod", "vastai"]


def parse(**sections: Any) -> DeploymentSpec:
    config = {
        f"vllm-anywhere:{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in sections.items()
    }
    return parse_spec(config, PLATFORMS)[0]


def problems(**sections: Any) -> list[Problem]:
    with pytest.raises(SpecError) as caught:
        parse(**sections)
    return list(caught.value.problems)


def test_everything_has_a_default() -> None:
    spec = parse()
    assert spec.provider == "local"
    assert spec.model.served_name == "qwen3-4b-instruct-2507"
    assert spec.engine.gpu_memory_utilization == 0.85


def test_the_served_name_follows_the_model() -> None:
    assert parse(model={"name": "org/Some-Model"}).model.served_name == "some-model"
    assert parse(model={"name": "org/Some-Model", "served_name": "mine"}).model.served_name == "mine"


@pytest.mark.parametrize(
    ("sections", "key", "fix"),
    [
        ({"model": {"max_len": "many"}}, "model.max_len", "a whole number"),
        ({"model": {"max_len": 1}}, "model.max_len", "128 or more"),
        ({"model": {"nmae": "x"}}, "model.nmae", "Did you mean `name`?"),
        ({"model": {"dtype": "int8"}}, "model.dtype", "one of 'auto', 'half'"),
        ({"model": {"served_name": "two words"}}, "model.served_name", "such as `qwen3-4b`"),
        ({"model": []}, "model", "a map of settings"),
        ({"engine": {"image": "vllm/vllm-openai:latest"}}, "engine.image", "a pinned tag or digest"),
        ({"engine": {"extra_args": ["--api-key=x"]}}, "engine.extra_args", "no secrets"),
        ({"engine": {"gpu_memory_utilization": 1.5}}, "engine.gpu_memory_utilization", "0.98 or less"),
        ({"hardware": {"gpus": "L4"}}, "hardware.gpus", "a list, such as `[L4, T4]`"),
        ({"hardware": {"gpus": ["L4", "?"]}}, "hardware.gpus.1", "a GPU's name"),
        ({"scaling": {"min": 3, "max": 1}}, "scaling", "raise `max` or lower `min`"),
        ({"budget": {"monthly_usd": "-3"}}, "budget.monthly_usd", "0 or more"),
        ({"hardwear": {}}, "hardwear", "Did you mean `hardware`?"),
        ({"region": {}}, "region", "Did you mean `placement.regions`?"),
        ({"hardware": {"region": "eu"}}, "hardware.region", "Did you mean `placement.regions`?"),
        ({"engine": {"tensor_parallel_size": 2}}, "engine.tensor_parallel_size", "Did you mean `hardware.gpu_count`?"),
        ({"replicas": 2}, "replicas", "Did you mean `scaling.min`?"),
        ({"provider": "runpd"}, "provider", "Did you mean `runpod`?"),
        ({"provider": "aws"}, "provider", "What there is: `local`, `runpod`, `vastai`"),
    ],
)
def test_each_problem_names_its_key_and_what_would_work(sections: dict[str, Any], key: str, fix: str) -> None:
    (problem,) = problems(**sections)
    assert problem.key == f"vllm-anywhere:{key}"
    assert fix in problem.fix


@pytest.mark.parametrize(
    ("key", "text", "fix"),
    [
        ("budget", "20", "a map of settings, such as `{monthly_usd: ...}`"),
        ("runpod", "pod", "a map of settings"),
        ("api_key", "sk-mine", "a key of your own is `own_api_key`"),
    ],
)
def test_a_section_that_is_one_value_is_told_what_belongs_there(key: str, text: str, fix: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec({f"vllm-anywhere:{key}": text}, PLATFORMS)
    (problem,) = caught.value.problems
    assert problem.fix.startswith("a map of settings") and fix in problem.fix


def test_a_secret_under_a_wrong_key_is_not_shown() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec({"vllm-anywhere:api_key": "sk-mine", "vllm-anywhere:model": '{"hf_token": "hf-mine"}'}, PLATFORMS)
    assert "mine" not in str(caught.value)
    assert "Did you mean `hf_token`?" in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    found = problems(provider="aws", model={"max_len": 0, "dtype": "x"}, hardwear={})
    assert {problem.key.removeprefix("vllm-anywhere:") for problem in found} == {
        "provider",
        "model.max_len",
        "model.dtype",
        "hardwear",
    }


def test_the_section_of_the_chosen_platform_is_handed_on_as_it_is() -> None:
    config = {"vllm-anywhere:provider": "runpod", "vllm-anywhere:runpod": '{"mode": "x"}', "vllm-anywhere:vastai": "{}"}
    assert parse_spec(config, PLATFORMS)[1] == {"mode": "x"}


def test_other_namespaces_and_secrets_are_left_alone() -> None:
    spec, _ = parse_spec({"gcp:project": "p", "vllm-anywhere:hf_token": "secret"}, PLATFORMS)
    assert "secret" not in repr(spec)


def test_numbers_may_stand_for_text() -> None:
    assert parse(api_key={"rotation": 2}).api_key.rotation == "2"


@given(st.decimals(min_value=0, max_value=100_000, places=2))
def test_money_is_exact_also_from_a_yaml_float(amount: Decimal) -> None:
    budget = parse_part(BudgetSpec, {"monthly_usd": float(amount)}, "budget")
    assert budget.monthly_usd == amount
    assert isinstance(budget.monthly_usd, Decimal)


@given(st.integers(128, 10_000), st.integers(0, 100), st.booleans())
def test_what_is_written_out_is_read_back_the_same(max_len: int, least: int, spot: bool) -> None:
    spec = parse(model={"max_len": max_len}, scaling={"min": least}, hardware={"spot": spot})
    again = parse(**spec.model_dump(mode="json"))
    assert again == spec


def test_the_schema_in_docs_is_what_the_spec_says() -> None:
    written = json.loads((ROOT / "docs/spec.schema.json").read_text())
    assert written == stack_file_schema(), "run `vllm-anywhere schema > docs/spec.schema.json`"


def test_the_schema_knows_every_section_and_no_other() -> None:
    config = stack_file_schema()["properties"]["config"]
    assert {f"vllm-anywhere:{name}" for name in DeploymentSpec.model_fields} <= set(config["properties"])
    assert config["additionalProperties"] is False
    assert config["properties"]["vllm-anywhere:provider"]["enum"] == [
        name for name in platform_names() if name != "fake"
    ]


@pytest.mark.parametrize("flag", ["--api-key=sk-mine", "--api_key=sk-mine", "--api-k=sk-mine", "--api-key sk-mine"])
def test_a_secret_among_the_arguments_is_refused_without_being_repeated(flag: str) -> None:
    (problem,) = problems(engine={"extra_args": [flag]})
    assert "sk-mine" not in str(problem)


def test_a_text_where_a_platforms_list_belongs_is_answered_with_the_command_that_sets_an_item() -> None:
    with pytest.raises(SpecError, match=r"pulumi config set --path 'vllm-anywhere:gcp\.zones\[0\]' VALUE"):
        parse_part(GcpOptions, {"zones": "europe-west4-a"}, "gcp")


def test_a_list_whose_items_are_refused_is_not_also_told_to_be_too_short() -> None:
    with pytest.raises(SpecError) as refused:
        parse_part(GcpOptions, {"allow": ["1.2.3"]}, "gcp")
    assert [problem.key for problem in refused.value.problems] == ["vllm-anywhere:gcp.allow.0"]
