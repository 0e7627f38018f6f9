"""What `vllm-anywhere monitor` writes: config, targets, keys and dashboard, without Prometheus and Grafana."""

from __future__ import annotations

import argparse
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from pydantic import SecretStr
from test_monitor_rules import METRICS, names_in

from ops.cli import main
from ops.monitor import add_monitor, monitor, of_stack
from ops.monitor_dashboard import COLUMNS, dashboard
from ops.monitor_files import Endpoint, File, monitor_files
from ops.monitor_folder import RECORD, write
from ops.stack import OpsError, ReadyOutput, Stack
from serving.alerts import SIGNALS, alert_rules

KEY = "sk-very-secret"
READY = ReadyOutput(time_to_ready_s=1, first_token_s=0.1, answered_at=None)


def stack(name: str = "prod", endpoint: str = "https://pod-8000.proxy.example/v1", **more: Any) -> Stack:
    return Stack(
        name=name,
        endpoint=endpoint,
        api_key=SecretStr(KEY),
        model="m",
        provider="runpod",
        hardware="1x L4",
        cost=more.pop("cost", {"hourly_usd": "0.39", "kind": "pod"}),
        ready=READY,
        **more,
    )


SERVERLESS = {"hourly_usd": "0.10", "kind": "serverless"}


def run(*arguments: str, stacks: Iterable[Stack] = (stack(),), **environ: str) -> int:
    parser = argparse.ArgumentParser()
    add_monitor(parser.add_subparsers())
    named = {one.name: one for one in stacks}
    return monitor(parser.parse_args(["monitor", *arguments]), read=named.__getitem__, environ=environ)


def config(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "prometheus.yml").read_text())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_key_is_in_one_private_file_and_nowhere_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = os.umask(0)
    try:
        assert run("-s", "prod", "--out", str(tmp_path / "m")) == 0
    finally:
        os.umask(before)
    having = [path for path in (tmp_path / "m").rglob("*") if path.is_file() and KEY in path.read_text()]
    assert having == [tmp_path / "m/keys/prod.key"]
    assert mode(having[0]) == 0o600
    assert mode(having[0].parent) == 0o700
    assert having[0].read_text() == KEY
    assert (tmp_path / "m/.gitignore").read_text() == "keys/\n"
    assert KEY not in capsys.readouterr().out


def test_the_key_is_never_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("-s", "prod", "--out", str(tmp_path), "--json")
    assert KEY not in capsys.readouterr().out
    assert KEY not in repr(of_stack(stack()))


def test_each_stack_has_a_job_with_its_own_key_and_ca_and_the_same_job_label(tmp_path: Path) -> None:
    stacks = [stack(), stack("org/shop/eu", "https://203.0.113.7:41234/v1", ca_pem="-----BEGIN")]
    run("-s", "prod", "org/shop/eu", "--out", str(tmp_path), stacks=stacks)
    prod, eu, exporter = config(tmp_path)["scrape_configs"]
    assert prod == {
        "job_name": "vllm-anywhere/prod",
        "authorization": {"type": "Bearer", "credentials_file": "keys/prod.key"},
        "follow_redirects": False,
        "file_sd_configs": [{"files": ["targets/prod.json"]}],
    }
    assert eu["tls_config"] == {"ca_file": "ca/org@shop@eu.pem"}
    assert (tmp_path / "ca/org@shop@eu.pem").read_text() == "-----BEGIN"
    assert exporter["static_configs"] == [{"targets": ["127.0.0.1:9790"]}]
    (target,) = json.loads((tmp_path / "targets/org@shop@eu.json").read_text())
    assert target["targets"] == ["203.0.113.7:41234"]
    assert target["labels"] == {
        "job": "vllm-anywhere",
        "stack": "org/shop/eu",
        "provider": "runpod",
        "__scheme__": "https",
        "__metrics_path__": "/metrics",
    }


@pytest.mark.parametrize(
    ("url", "target", "scheme", "path"),
    [
        ("https://h.example/v1", "h.example:443", "https", "/metrics"),
        ("http://h.example/v1/", "h.example:80", "http", "/metrics"),
        ("http://[::1]:8000/v1", "[::1]:8000", "http", "/metrics"),
        ("https://h.example/llm/v1", "h.example:443", "https", "/llm/metrics"),
    ],
)
def test_metrics_are_beside_the_api(url: str, target: str, scheme: str, path: str) -> None:
    (group,) = json.loads(monitor_files([Endpoint("x", url, SecretStr(KEY))])["targets/x.json"].text)
    labels = group["labels"]
    assert (group["targets"], labels["__scheme__"], labels["__metrics_path__"]) == ([target], scheme, path)


def test_what_scales_to_zero_is_not_scraped_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("-s", "prod", "--out", str(tmp_path), stacks=[stack(cost=SERVERLESS)])
    assert "prod is not scraped" in capsys.readouterr().out
    assert [job["job_name"] for job in config(tmp_path)["scrape_configs"]] == ["vllm-anywhere-exporter"]
    assert not (tmp_path / "keys").exists()


def test_a_gpu_exporter_is_scraped_under_its_stacks_name(tmp_path: Path) -> None:
    run("-s", "prod", "--out", str(tmp_path), "--gpu", "prod=10.0.0.5:9400", "--exporter-at", "")
    assert config(tmp_path)["scrape_configs"][1:] == [
        {
            "job_name": "vllm-anywhere-gpu",
            "static_configs": [{"targets": ["10.0.0.5:9400"], "labels": {"stack": "prod"}}],
        }
    ]


def test_alerts_go_to_the_alertmanager_that_is_named(tmp_path: Path) -> None:
    run("-s", "prod", "--out", str(tmp_path), "--alertmanager", "127.0.0.1:9093")
    assert config(tmp_path)["alerting"] == {"alertmanagers": [{"static_configs": [{"targets": ["127.0.0.1:9093"]}]}]}


def test_a_url_needs_no_stack_and_has_no_exporter(tmp_path: Path) -> None:
    run("--url", "https://h.example/v1", "--out", str(tmp_path), stacks=[], OPENAI_API_KEY=KEY)
    (job,) = config(tmp_path)["scrape_configs"]
    assert job["job_name"] == "vllm-anywhere/h.example"
    assert (tmp_path / "keys/h.example.key").read_text() == KEY


def test_a_second_call_writes_only_what_has_changed_and_says_whether_to_reload(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("-s", "prod", "--out", str(tmp_path), "--json")

    def told(of: Stack) -> dict[str, Any]:
        run(*arguments, stacks=[of])
        return json.loads(capsys.readouterr().out)

    first = told(stack())
    assert first["reload"]
    assert first["changed"] == first["files"]
    assert told(stack())["changed"] == []
    moved = told(stack(endpoint="https://other-8000.proxy.example/v1"))
    assert (moved["changed"], moved["reload"]) == (["targets/prod.json"], False)
    asleep = told(stack(cost=SERVERLESS))
    assert asleep["changed"] == ["keys/prod.key", "prometheus.yml", "targets/prod.json"]
    assert asleep["reload"]
    assert not (tmp_path / "keys/prod.key").exists()


def test_a_key_that_others_could_read_is_made_private_again(tmp_path: Path) -> None:
    write(tmp_path, {"keys/a.key": File(KEY, 0o600)})
    (tmp_path / "keys/a.key").chmod(0o644)
    assert write(tmp_path, {"keys/a.key": File(KEY, 0o600)}) == ["keys/a.key"]
    assert mode(tmp_path / "keys/a.key") == 0o600


def test_files_of_somebody_else_are_neither_overwritten_nor_deleted(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/mine.key").write_text("mine")
    (tmp_path / "prometheus.yml").write_text("mine")
    with pytest.raises(OpsError, match=r"prometheus\.yml there is not from here"):
        run("-s", "prod", "--out", str(tmp_path))
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["mine.key", "prometheus.yml"]
    (tmp_path / "prometheus.yml").unlink()
    run("-s", "prod", "--out", str(tmp_path))
    run("-s", "prod", "--out", str(tmp_path), stacks=[stack(cost=SERVERLESS)])
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["mine.key"]


def test_a_record_that_names_files_elsewhere_deletes_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / RECORD).write_text(json.dumps(["../mine", str(tmp_path / "mine")]))
    assert write(folder, {"a": File("a")}) == ["a"]
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_call_that_was_cut_short_is_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def cut(self: Path, target: Path) -> Path:
        if target.name == "b":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, {"a": File("a"), "b": File("b")})
    monkeypatch.undo()
    assert write(tmp_path, {"a": File("a"), "b": File("b")}) == ["b"]
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "either --out DIR"),
        (("--out", "x", "--exporter"), "either --out DIR"),
        (("--url", "https://h/v1", "-s", "prod", "--out", "x"), "leave out -s"),
        (("--url", "https://h/v1", "--out", "x"), "put it into VLLM_ANYWHERE_KEY"),
        (("--url", "h/v1", "--key", "k", "--out", "x"), "an OpenAI base URL"),
        (("--out", "x", "--exporter-at", "9790"), "host:port"),
        (("--out", "x", "--alertmanager", "http://h:9093"), "host:port"),
        (("--exporter", "--port", "70000"), "0 to 65535"),
        (("-s", "prod", "--out", "x", "--gpu", "dev=h:1"), "one of prod"),
        (("-s", "prod", "--out", "x", "--gpu", "prod=h"), "host:port of its dcgm-exporter"),
        (("-s", "prod", "--out", "/dev/null/x"), "Not a directory"),
    ],
)
def test_wrong_usage_says_what_works(arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(OpsError, match=says):
        run(*arguments)


def test_the_command_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["monitor", "--help"])
    assert "--exporter" in capsys.readouterr().out


def test_the_dashboard_has_a_panel_for_every_signal_and_its_bound() -> None:
    panels = {panel["title"]: panel for panel in dashboard()["panels"]}
    assert list(panels) == [signal.title for signal in SIGNALS]
    for signal in SIGNALS:
        panel = panels[signal.title]
        assert panel["fieldConfig"]["defaults"]["unit"] == signal.unit
        assert len(panel["targets"]) == len(signal.queries)
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert steps[0]["value"] is None
        judged = signal.alert and not signal.alert.queries
        assert [step["value"] for step in steps[1:]] == ([float(signal.alert.bound)] if signal.alert and judged else [])
    colours = [step["color"] for step in panels["Endpoint answers"]["fieldConfig"]["defaults"]["thresholds"]["steps"]]
    assert colours == ["red", "green"]


def test_the_dashboards_panels_neither_overlap_nor_leave_the_grid() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= COLUMNS
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        taken |= cells


def test_the_dashboard_is_what_grafana_imports() -> None:
    board = json.loads(monitor_files([])["dashboard.json"].text)
    assert board["schemaVersion"] >= 36
    assert "id" not in board
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = json.dumps(board["panels"]) + json.dumps(board["annotations"])
    for name in ("datasource", "stack"):
        assert name in variables
        assert f"${name}" in used or f"${{{name}}}" in used
    for panel in board["panels"]:
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])


def test_every_query_of_the_dashboard_parses_and_keeps_to_the_chosen_stacks() -> None:
    known = set[str]().union(*METRICS.values())
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", "1m").replace("$stack", "prod|dev")
            assert names_in(promql_parser.parse(expr)) <= known
            assert 'stack=~"prod|dev"' in expr or "{{instance}}" in target["legendFormat"]


def test_the_rules_that_are_written_are_the_rules() -> None:
    assert yaml.safe_load(monitor_files([])["alerts.yml"].text) == alert_rules()
