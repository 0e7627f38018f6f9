"""What a report is made of, before any browser: its data, its files and its refusals."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import ops.report
from ops.compare import add_compare
from ops.report import add_report
from ops.report_bench import read_bench
from ops.report_facts import grown
from ops.spec import read_spec
from ops.stack import OpsError

SAVED = {"model_id": "m", "num_prompts": 5, "completed": 5, "request_throughput": 1.5, "output_throughput": 300.0}


def run(add: Any, *args: str) -> int:
    parser = argparse.ArgumentParser()
    add(parser.add_subparsers())
    parsed = parser.parse_args([*args])
    return parsed.run(parsed)


def test_json_has_the_offers_of_compare_and_the_months_of_the_growth(capsys: pytest.CaptureFixture[str]) -> None:
    use = ("--offline", "--json", "--set", "usage.requests_per_day=1000", "--set", "hardware.spot=true")
    assert run(add_compare, "compare", "--fits", *use) == 0
    compared = json.loads(capsys.readouterr().out)
    assert run(add_report, "report", "--growth", "10", *use) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["offers"] == compared["offers"]
    assert [month["requests"] for month in report["six_months"]["months"]] == [30417, 33459, 36805, 40485, 44534, 48987]
    first = report["six_months"]["months"][0]
    declared = report["breakeven"]["declared"]["monthly_usd"]
    assert first["always_on_usd"] == declared["always on"]
    assert first["api_usd"] == declared[report["six_months"]["api"]]


def test_growth_is_counted_from_the_first_month() -> None:
    assert list(grown(100, 0)) == [100] * 6
    assert list(grown(3, 50)) == [3, 4, 7, 10, 15, 23]


def test_the_file_says_its_size_and_needs_no_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.html"
    assert run(add_report, "report", "--offline", "--out", str(file)) == 0
    assert capsys.readouterr().err == f"the report is in {file} (2.2 MB); it needs no network to be read\n"
    assert file.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_secrets_of_a_stack_are_not_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Pulumi.one.yaml").write_text(
        "encryptionsalt: v1:salt\n"
        "config:\n"
        "  vllm-anywhere:provider: runpod\n"
        "  vllm-anywhere:hf_token: {secure: v1:cipher}\n"
        "  vllm-anywhere:usage: {requests_per_day: 10}\n"
        "  runpod:token: plain-secret\n"
    )
    monkeypatch.setattr(ops.report, "asked_spec", lambda args: read_spec("one", folder=tmp_path))
    out = tmp_path / "report.html"
    run(add_report, "report", "-s", "one", "--offline", "--out", str(out))
    run(add_report, "report", "-s", "one", "--offline", "--json")
    shown = out.read_text(encoding="utf-8") + capsys.readouterr().out
    assert '"stack":"one"' in shown
    assert not [secret for secret in ("v1:salt", "v1:cipher", "plain-secret") if secret in shown]


def test_without_plotly_the_extra_is_named_and_json_still_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(OpsError, match=r"pip install -c constraints.txt -e '.\[report\]'"):
        run(add_report, "report", "--offline", "--out", str(tmp_path / "report.html"))
    assert run(add_report, "report", "--offline", "--json") == 0
    assert json.loads(capsys.readouterr().out)["example_use"] is True


def test_a_spec_that_nothing_fits_is_said_with_exit_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(add_report, "report", "--offline", "--json", "--set", "hardware.gpus=[GTX 1660]") == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["offers"], report["breakeven"]["hosting"]) == ([], [])
    assert report["six_months"]["months"][0]["api_usd"]


def test_an_unknown_api_is_answered_with_those_there_are() -> None:
    with pytest.raises(OpsError, match=r"no API is known as Qwen; there are: Claude"):
        run(add_report, "report", "--offline", "--json", "--api", "Qwen")


@pytest.mark.parametrize("percent", ["-1", "101", "ten"])
def test_growth_is_a_whole_number_of_per_cent(percent: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(add_report, "report", f"--growth={percent}")
    assert f"{percent}: per cent a month, 0 to 100" in capsys.readouterr().err


def test_a_page_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(OpsError, match="the report can't be written to"):
        run(add_report, "report", "--offline", "--out", str(tmp_path / "no" / "such" / "folder.html"))


def test_bench_files_of_this_tool_of_vllm_and_of_a_sweep_are_read(tmp_path: Path) -> None:
    ours = {
        "begun": "2026-11-20T10:15:00+00:00",
        "load": "10 at a time",
        "target": {"url": "https://example.org", "stack": "runpod", "hardware": "L4"},
        "cost": {"hourly_usd": "0.39", "usd_per_million_output_tokens": "0.3210"},
        "slo": {"decision": "go", "criteria": []},
    }
    (tmp_path / "ours.json").write_text(json.dumps(SAVED | {"vllm_anywhere": ours}))
    (tmp_path / "theirs.json").write_text(json.dumps(SAVED | {"date": "20261119-080000", "max_concurrency": 4}))
    (tmp_path / "sweep.json").write_text("\n".join(json.dumps(SAVED | {"label": name}) for name in "ab"))
    (one,), (two,) = read_bench(tmp_path / "ours.json"), read_bench(tmp_path / "theirs.json")
    assert (one.label, one.hardware, one.load, one.day) == ("runpod", "L4", "10 at a time", "2026-11-20")
    assert (one.usd_per_million, one.decision, one.failed) == ("0.3210", "go", 0)
    assert (two.label, two.load, two.day) == ("theirs", "4 at a time", "2026-11-19")
    assert [run.label for run in read_bench(tmp_path / "sweep.json")] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("{}", "completed, model_id"), ("not it", "not JSON"), ("", "the file is empty"), ("[]", "not JSON")],
)
def test_what_is_no_result_is_refused_with_the_command_that_writes_one(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "run.json"
    file.write_text(text)
    with pytest.raises(OpsError, match=said) as refused:
        read_bench(file)
    assert "`vllm-anywhere bench --save FILE` writes one" in str(refused.value)
    with pytest.raises(OpsError, match="it can't be read"):
        read_bench(tmp_path / "none.json")
