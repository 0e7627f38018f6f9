"""The GPU catalogue and its lookup."""

from __future__ import annotations

import pytest

from serving.gpus import PLATFORMS, UnknownGpu, all_gpus, find_gpus, gpu, gpu_on


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("4090", ["RTX 4090"]),
        ("rtx4090", ["RTX 4090"]),
        ("NVIDIA GeForce RTX 4090", ["RTX 4090"]),
        ("RTX 3080", ["RTX 3080", "RTX 3080 12GB"]),
        ("l40", ["L40"]),
        ("L40S 48GB", ["L40S"]),
        ("T4 16 GB", ["T4"]),
        ("tesla t4", ["T4"]),
        ("nvidia-tesla-t4", ["T4"]),
        ("A10G", ["A10"]),
        ("RTX 4000Ada", ["RTX 4000 Ada"]),
        ("rtx-4000-ada", ["RTX 4000 Ada"]),
        ("A100-80GB", ["A100 80GB SXM"]),
        ("a100 40 gb", ["A100 40GB PCIe", "A100 40GB SXM"]),
        ("a100 sxm4 80g", ["A100 80GB SXM"]),
        ("h100", ["H100 SXM"]),
        ("v100", ["V100 16GB", "V100 32GB"]),
        ("RTX 4080S", ["RTX 4080 SUPER"]),
        ("A6000", ["RTX A6000"]),
    ],
)
def test_a_gpu_is_found_by_what_people_type(typed: str, names: list[str]) -> None:
    assert [g.name for g in find_gpus(typed)] == names


def test_a_bare_a100_means_every_a100() -> None:
    assert {g.name for g in find_gpus("A100")} == {
        "A100 40GB PCIe",
        "A100 40GB SXM",
        "A100 80GB PCIe",
        "A100 80GB SXM",
    }


def test_an_unknown_gpu_is_answered_with_near_names() -> None:
    with pytest.raises(UnknownGpu, match="RTX 4090") as caught:
        find_gpus("RTX 409O")
    assert caught.value.suggestions[0].startswith("RTX 4090")
    with pytest.raises(UnknownGpu):
        find_gpus("")


@pytest.mark.parametrize("known", all_gpus(), ids=lambda g: g.name)
def test_every_name_a_platform_uses_leads_back_to_the_gpu(known) -> None:
    assert gpu(known.name) is known
    assert known in find_gpus(known.name)
    for platform, names in known.platform_names.items():
        for name in names:
            assert gpu_on(platform, name, known.memory_gib) == known
            assert known in find_gpus(name)


def test_one_platform_name_for_two_sizes_is_told_apart_by_memory() -> None:
    assert gpu_on("vastai", "A100 SXM4", 80).name == "A100 80GB SXM"
    assert gpu_on("vastai", "A100 SXM4", 40).name == "A100 40GB SXM"
    assert gpu_on("vastai", "A100 SXM4").name == "A100 40GB SXM"


def test_runpod_rents_no_t4() -> None:
    assert {"vastai", "gcp", "modal"} <= set(gpu("T4").platform_names) <= set(PLATFORMS) - {"runpod"}
    with pytest.raises(UnknownGpu):
        gpu_on("runpod", "Tesla T4")
