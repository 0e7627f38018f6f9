"""`compare`, `fit`, `prices` and `comment` as people and programs use them, on the dated prices."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from typing import Any

import pytest

from ops import cli
from ops.comment import failure, markdown
from tests import golden

PREVIEW = {
    "provider": "runpod",
    "offer": "NVIDIA L4, pod",
    "place": {"where": "Romania", "evidence": "RunPod Secure Cloud"},
    "hardware": "1 x L4",
    "model": "qwen3-4b",
    "engine": "vLLM 0.27.1",
    "fit": "L4: fits | well",
    "creates": [],
    "notes": ["A note."],
    "running": None,
    "change": {"monthly_usd": "365.00", "text": "+$365.00/month: nothing runs now"},
    "cost": {
        "hourly_usd": "0.5000",
        "monthly_usd": "365.00",
        "low": "300.00",
        "high": "400.00",
        "incomplete": False,
        "depends_on_usage": False,
        "budget": {"limit_usd": "400.00", "left_usd": "35.00"},
        "lines": [
            {
                "ChargeDescription": "GPU, NVIDIA L4",
                "PricingQuantity": "730",
                "PricingUnit": "Hours",
                "ListUnitPrice": "0.5",
                "ContractedCost": "365",
                "x_PriceSource": "live",
                "x_PriceAsOf": "2026-11-21",
                "x_PriceUrl": "https://example.org/prices",
            }
        ],
        "alternatives": [{"provider": "vastai", "gpu": "L4", "region": "", "monthly_usd": "200.00"}],
    },
}


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    return int(ended.value.code or 0)


def output(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> str:
    assert run(*argv) == code
    return capsys.readouterr().out


def test_compare_ranks_what_fits_first_and_says_why_the_rest_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    answer = json.loads(output(capsys, "compare", "--offline", "--json"))
    offers = answer["offers"]
    fitting = [o for o in offers if o["fits"]]
    assert offers[: len(fitting)] == fitting
    costs = [float(o["monthly_usd"]) for o in fitting if not o["incomplete"] and not o["depends_on_usage"]]
    assert costs == sorted(costs)
    assert all(o["reasons"] for o in offers[len(fitting) :])
    assert {"runpod", "vastai", "gcp", "modal"} <= {o["provider"] for o in offers}


def test_compare_offline_is_the_same_every_time(capsys: pytest.CaptureFixture[str]) -> None:
    first = output(capsys, "compare", "--offline")
    assert first == output(capsys, "compare", "--offline")
    assert "days old" not in first
    assert "\x1b" not in first
    assert all(line == line.rstrip() for line in first.splitlines())


def test_compare_keeps_the_cheapest_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(output(capsys, "compare", "--offline", "--json"))["offers"]
    fitting, others = ([o for o in facts if o["fits"] is fits] for fits in (True, False))
    lines = output(capsys, "compare", "--offline").splitlines()
    assert len(lines) < 80
    heads = [index for index, line in enumerate(lines) if "─" in line]
    shown = lines[heads[0] + 1 :]
    assert [line.split()[0] for line in shown[:20]] == [o["provider"] for o in fitting[:20]]
    unpriced = sum(o["incomplete"] for o in fitting[20:])
    assert f"{len(fitting) - 20 - unpriced} more" in shown[21]
    assert f"{unpriced} whose price was not found" in shown[21]
    counts = re.findall(r"  (\d+)   [a-z, ]+: ", "\n".join(lines[heads[1] :]))
    assert sum(map(int, counts)) == len(others)


def test_compare_shows_every_offer_and_every_reason_if_asked(capsys: pytest.CaptureFixture[str]) -> None:
    whole = output(capsys, "compare", "--offline", "--all", "--platform", "vastai")
    assert len(whole.splitlines()) > 200
    assert "too small (6 GiB); a community host" in whole
    assert "--all" not in whole
    assert len(output(capsys, "compare", "--offline", "--top", "3").splitlines()) < 20


def test_compare_filters_by_region_and_platform(capsys: pytest.CaptureFixture[str]) -> None:
    anywhere = ["--set", "placement.regions=[]"]
    dutch = json.loads(
        output(capsys, "compare", "--offline", "--json", "--region", "nl", "--platform", "gcp", *anywhere)
    )
    assert dutch["offers"]
    # An offer without a price is not known to be in any one region.
    assert {(o["provider"], o["country"]) for o in dutch["offers"] if not o["incomplete"]} == {("gcp", "NL")}


def test_compare_sorts_and_cuts(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = json.loads(output(capsys, "compare", "--offline", "--json", "--sort", "context", "--fits", "--top", "3"))
    contexts = [o["longest_request_tokens"] for o in chosen["offers"]]
    assert len(contexts) == 3
    assert contexts == sorted(contexts, reverse=True)


def test_compare_writes_a_spreadsheet(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(output(capsys, "compare", "--offline", "--csv", "--top", "5"))))
    assert len(rows) == 5
    assert rows[0]["fits"] == "True"
    assert rows[0]["price_as_of"]


def test_compare_with_gdpr_shows_where_and_on_what_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("compare", "--offline", "--json", "--set", "placement.gdpr=true", "--set", "placement.tier=any")
    offers = json.loads(output(capsys, *asked))["offers"]
    assert all(o["tier"] == "secure" and o["evidence"] for o in offers if o["fits"])
    assert not any(o["fits"] for o in offers if o["tier"] == "community")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--region", "atlantis"), "no place is known as atlantis"),
        (("--stack", "no-such-stack"), "there is no stack file"),
        (("--set", "model.max_len=many"), "vllm-anywhere:model.max_len"),
        (("--set", "model.name=somebody/unheard-of"), "model.config"),
        (("--set", "hardware.gpus=[Voodoo]"), "Voodoo"),
    ],
)
def test_compare_says_what_is_wrong_with_a_question(
    argv: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("compare", "--offline", *argv) == 1
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error


def test_compare_exits_1_when_nothing_fits(capsys: pytest.CaptureFixture[str]) -> None:
    output(capsys, "compare", "--offline", "--set", "model.max_len=262144", "--set", "hardware.gpus=[T4]", code=1)


def test_fit_shows_every_number_of_one_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "fit", "L4")
    for word in ("fits", "weights", "activations", "KV cache", "longest request"):
        assert word in text


def test_fit_names_the_change_that_helps_and_exits_1(capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "fit", "T4", "--set", "model.max_len=60000", code=1)
    assert "does not start" in text
    assert "model.max_len: 27136" in text


def test_fit_without_a_gpu_shows_all_that_can_be_rented(capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(output(capsys, "fit", "--json"))
    assert len(facts["gpus"]) > 50
    assert {g["fits"] for g in facts["gpus"]} == {True, False}
    assert "what would help" in output(capsys, "fit")


def test_fit_reads_a_config_for_a_model_that_the_catalogue_lacks(
    capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    config = tmp_path / "config.json"
    shape = {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 16,
        "hidden_size": 2048,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
    }
    config.write_text(json.dumps(shape))
    text = output(capsys, "fit", "L4", "--model", "somebody/own", "--config", str(config))
    assert "somebody/own on L4: fits" in text
    config.write_text("[]")
    assert run("fit", "L4", "--model", "somebody/own", "--config", str(config)) == 1
    assert "is not a JSON object" in capsys.readouterr().err


def test_fit_lists_the_models_it_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Qwen/Qwen3-4B-AWQ" in output(capsys, "fit", "--list")


def test_prices_have_a_source_and_an_age(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(output(capsys, "prices", "--json"))
    assert all(row["url"] and row["as_of"] and row["age_days"] >= 0 for row in rows)
    assert "days old" in output(capsys, "prices") or "prices, from" in output(capsys, "prices")


def test_prices_are_checked(capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "each with source and date" in output(capsys, "prices", "--check")
    own = tmp_path / "own.csv"
    own.write_text(output(capsys, "prices", "--columns").replace("https", "", 1))
    text = own.read_text().splitlines()
    cells = next(csv.reader([text[1]]))
    header = text[0].split(",")
    cells[header.index("url")] = ""
    with own.open("w", newline="") as file:
        csv.writer(file).writerows([header, cells])
    monkeypatch.setenv("VLLM_ANYWHERE_PRICES", str(own))
    assert "url" in output(capsys, "prices", "--check", code=1)


def test_prices_of_an_unknown_platform_name_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("prices", "--platform", "aws") == 1
    assert "there are of gcp" in capsys.readouterr().err


def test_a_preview_becomes_a_markdown_table() -> None:
    text = markdown(PREVIEW, {"create": 3, "same": 1})
    assert "| GPU, NVIDIA L4 | 730 h | $0.50/h | $365.00 | [live 2026-11-21](https://example.org/prices) |" in text
    assert "- Budget: $35.00 of $400.00 a month is left" in text
    assert "- Resources: 3 to create" in text
    assert "| vastai | L4 | $200.00 | -$165.00 |" in text
    assert "fits \\| well" in text


def piped(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_comment_reads_a_preview_from_its_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    urn = "urn:pulumi:x::vllm-anywhere::vllm-anywhere:index:Deployment::deployment"
    message = {"urn": urn, "message": json.dumps(PREVIEW), "severity": "info"}
    piped(monkeypatch, json.dumps({"diagnostics": [message], "changeSummary": {"create": 5}}))
    assert output(capsys, "comment").startswith("### runpod: $365.00 a month, +$365.00/month\n")


def test_a_failed_preview_becomes_a_comment_too_and_exits_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    piped(monkeypatch, json.dumps({"diagnostics": [{"message": "over budget", "severity": "error"}]}))
    assert "over budget" in output(capsys, "comment", code=1)
    assert failure(["a ```` b"]).count("`````") == 2


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"diagnostics": [1]}', '{"diagnostics": []}'])
def test_what_is_no_preview_is_answered_with_how_to_make_one(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    piped(monkeypatch, text)
    assert run("comment") == 1
    assert "VLLM_ANYWHERE_REPORT=json pulumi preview --json" in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 120])
def test_compare_fits_its_width_and_breaks_no_word(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    asked = ("--set", "usage.requests_per_day=1000", "--set", "placement.gdpr=true", "--platform", "runpod")
    text = output(capsys, "compare", "--offline", *asked)
    assert max(map(len, text.splitlines())) <= width
    golden.check(f"compare/runpod-{width}.txt", text.rstrip("\n"))


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--platform", "aws"), "nothing is known of a platform aws; there are gcp"),
        (("--top", "0"), "a whole number above 0"),
    ],
)
def test_compare_refuses_a_platform_or_count_that_means_nothing(
    argv: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("compare", "--offline", *argv) in (1, 2)
    assert says in capsys.readouterr().err


def test_an_offer_without_a_price_has_no_amount_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    offers = json.loads(output(capsys, "compare", "--offline", "--json"))["offers"]
    unpriced = [o for o in offers if o["incomplete"]]
    assert unpriced
    assert all(o["monthly_usd"] is None and o["high"] is None for o in unpriced)
