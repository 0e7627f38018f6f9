"""`vllm-anywhere fit` as people and programs see it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from golden import check

from ops import cli


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(("fit", *argv))
    return int(ended.value.code or 0)


def facts(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    run(*argv, "--json")
    return json.loads(capsys.readouterr().out)


def halves(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[str, str]:
    """What is shown of the budget, and of what lies beside it."""
    run(*argv)
    inside, _, beside = " ".join(capsys.readouterr().out.split()).partition("beside the budget")
    return inside, beside


SHOWN = {
    "one-gpu": ("L4",),
    "several": ("T4", "RTX 4090", "--set", "engine.gpu_memory_utilization=0.92"),
    "two-cards": ("A10", "--set", "hardware.gpu_count=2", "--set", "engine.version=0.29.0"),
    "refused": ("T4", "--model", "Qwen/Qwen3-4B-GGUF", "--set", "model.quantization=gptq"),
    "table": (
        *("--set", "provider=runpod", "--model", "Qwen/Qwen3-14B", "--set", "hardware.disk_gb=80"),
        *("--set", "hardware.gpus=[T4, RTX A4000, L4, RTX A5000, V100 32GB, A40, A100 80GB SXM]"),
    ),
}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", SHOWN)
def test_people_see_this_in_a_pipe(
    name: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    run(*SHOWN[name])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= width
    check(f"fit/{name}-{width}.txt", shown.rstrip())


@pytest.mark.parametrize("name", SHOWN)
def test_words_are_whole_in_80_columns_and_sentences_keep_their_indent(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[int, str] = {}
    for width in (80, 300):
        monkeypatch.setenv("COLUMNS", str(width))
        run(*SHOWN[name])
        shown[width] = capsys.readouterr().out.replace("─", "")
    assert set(shown[80].split()) <= set(shown[300].split())
    finding = [line for line in shown[80].splitlines() if "vllm-anywhere:" in line]
    assert all(line.startswith("  vllm-anywhere:") for line in finding)


def test_all_of_the_card_is_accounted_for(capsys: pytest.CaptureFixture[str]) -> None:
    for card in facts(capsys)["gpus"]:
        parts = ("weights_gib", "activation_gib", "graphs_in_budget_gib", "non_torch_gib", "kv_gib")
        assert sum(card[part] for part in parts) == pytest.approx(card["budget_gib"], abs=0.005)
        whole = card["budget_gib"] + card["outside_gib"] + card["card_free_gib"]
        assert whole == pytest.approx(card["memory_gib"], abs=0.005)


def test_captured_graphs_are_shown_where_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    inside, beside = halves(capsys, "L4")
    assert "CUDA graphs" not in inside
    assert "CUDA graphs 0.60 GiB vLLM 0.27.1 sets none of its budget aside for them" in beside
    inside, beside = halves(capsys, "L4", "--set", "engine.version=0.29.0")
    assert "CUDA graphs 0.60 GiB" in inside
    assert "CUDA graphs" not in beside
    assert "CUDA graphs" not in "".join(halves(capsys, "L4", "--set", "engine.enforce_eager=true"))


@pytest.mark.parametrize(("platform", "rents"), [("runpod", False), ("vastai", True)])
def test_a_card_that_the_specs_platform_does_not_rent_is_refused(
    platform: str, rents: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run("T4", "--set", f"provider={platform}")
    shown = capsys.readouterr().out
    assert (f"{platform} rents no T4" in shown, "fits, but is refused" in shown) == (not rents, not rents)
    assert code == (0 if rents else 1)


def test_the_platform_of_a_stack_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("T4", "-s", "runpod") == 1
    assert "runpod rents no T4" in capsys.readouterr().out


def test_a_platform_that_rents_nothing_has_no_opinion(capsys: pytest.CaptureFixture[str]) -> None:
    for platform in ("local", "fake"):
        assert run("T4", "--set", f"provider={platform}") == 0
        assert "rents no" not in capsys.readouterr().out


def test_without_a_gpu_those_of_the_specs_platform_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    shown = facts(capsys, "--set", "provider=runpod")["gpus"]
    assert {"L4", "RTX 4090", "H100 SXM"} <= {card["gpu"] for card in shown}
    assert "T4" not in {card["gpu"] for card in shown}
    assert not any("rents no" in finding["wrong"] for card in shown for finding in card["findings"])


def test_a_larger_card_is_one_that_the_specs_platform_rents(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--model", "Qwen/Qwen3-14B", "--set", "hardware.disk_gb=80")
    larger = {
        platform: next(
            change["value"]
            for change in facts(capsys, "L4", *asked, "--set", f"provider={platform}")["gpus"][0]["changes"]
            if change["key"] == "hardware.gpus"
        )
        for platform in ("vastai", "runpod")
    }
    assert larger == {"vastai": "[A100 40GB PCIe]", "runpod": "[A40]"}
