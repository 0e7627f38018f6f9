"""Which of a platform's GPUs will do for a spec, and what is said of the others."""

from __future__ import annotations

from providers.fitting import misfits, passed_over
from serving.spec import DeploymentSpec


def wants(*gpus: str, max_len: int = 8192) -> DeploymentSpec:
    return DeploymentSpec.model_validate({"hardware": {"gpus": gpus}, "model": {"max_len": max_len}})


def test_a_wanted_gpu_that_is_not_tried_is_told_with_the_reason() -> None:
    assert passed_over(wants("RTX 4060", "L4"), "runpod") == ["RTX 4060 is passed over: runpod rents no RTX 4060."]
    (told,) = passed_over(wants("L4", "T4", max_len=32768), "gcp")
    assert told.startswith("T4 is passed over: one request of 32,768 tokens needs ")


def test_nothing_is_told_where_all_are_tried_or_none_is() -> None:
    assert passed_over(wants("L4", "RTX A5000"), "runpod") == []
    assert passed_over(wants("RTX 4060"), "runpod") == []
    assert passed_over(wants("L4"), "local") == []


def test_a_reason_names_its_gpu_unless_it_holds_for_all_of_them() -> None:
    reasons = [str(reason) for reason in misfits(wants("L4", "RTX A5000", max_len=9_999_999), "runpod")]
    of_all, *of_one = reasons
    assert of_all.startswith("vllm-anywhere:model.max_len: Qwen/Qwen3-4B-Instruct-2507 was made for 262,144 tokens")
    assert [reason.split(": ")[1] for reason in of_one] == ["L4", "RTX A5000"]
    (alone, *_) = (str(reason) for reason in misfits(wants("T4", max_len=32768), "gcp"))
    assert alone.startswith("vllm-anywhere:model.max_len: one request of 32,768 tokens")
