"""`vllm-anywhere logs` of servers on the emulated RunPod and Vast.ai, on this machine and in memory."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from emulators.faults import Fault, Kind
from emulators.runpod import RunPodEmulator
from emulators.vastai import VastEmulator, offer_row
from engine import Project
from runpod_wire import POD, client_of, created
from states import Cli, resource
from test_ops_cli import OUTPUTS

from ops.logs import add_logs, logs, masked
from ops.stack import OpsError, pulumi_command
from providers.gateway.client import GatewayMachine
from serving.failures import RULES

POD_TOKEN = "vllm-anywhere:runpod:Pod"
TOO_LONG = (
    "ValueError: To serve at least one request with the model's max seq len (65536), (4.76 GiB KV cache is needed). "
    "Based on the available memory, the estimated maximum model length is 15984."
)


@pytest.fixture
def runpod(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunPodEmulator]:
    with RunPodEmulator() as emulator:
        for name, value in emulator.env().items():
            monkeypatch.setenv(name, value)
        yield emulator


def asked(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_logs(parser.add_subparsers())
    return parser.parse_args(["logs", "-s", "dev", *words])


def told(*words: str, cli: Cli, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """Exit status and the one server's part of the JSON."""
    status = logs(asked(*words, "--json"), run=cli)
    (server,) = json.loads(capsys.readouterr().out)["servers"]
    return status, server


def crashed_pod(runpod: RunPodEmulator, *lines: str) -> Cli:
    """A stack whose pod prints these lines and never listens."""
    runpod.boot(log=list(lines), broken=True)
    with client_of(runpod) as api:
        pod = created(api, "/v2/pods", POD)
    return Cli(dev=[resource(POD_TOKEN, pod["id"])])


def test_the_last_lines_of_a_pod_are_shown(runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    cli = crashed_pod(runpod, "INFO one", "INFO two [cpu]", "INFO three")
    assert logs(asked("-n", "2"), run=cli) == 0
    assert capsys.readouterr().out == "INFO two [cpu]\nINFO three\n"


def test_why_names_the_cause_quotes_the_line_and_gives_the_command_with_the_number(
    runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = crashed_pod(runpod, "INFO starting", TOO_LONG, *(f"  File {n}" for n in range(60)))
    assert logs(asked("--why", "-n", "1"), run=cli) == 0
    out = capsys.readouterr().out
    assert "The GPU has no room for one request of that length." in out
    assert "the estimated maximum model length is 15984" in " ".join(out.split())
    assert "pulumi config set -s dev --path vllm-anywhere:model.max_len 15984" in out
    assert "pulumi up -s dev" in out
    assert out.endswith("  File 59\n")


def test_why_as_json_has_the_rule_and_an_unknown_failure_exits_1(
    runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    status, server = told("--why", cli=crashed_pod(runpod, TOO_LONG), capsys=capsys)
    assert (status, server["why"]["name"]) == (0, "kv-cache-too-small")
    assert server["why"]["line"] == TOO_LONG
    runpod.account.boots.clear()
    status, server = told("--why", cli=crashed_pod(runpod, "INFO all is well"), capsys=capsys)
    assert (status, server["why"]) == (1, None)


def test_a_server_that_is_up_has_failed_only_if_nothing_reaches_it(
    runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    states = crashed_pod(runpod, "INFO 05-06 21:00:52 [api_server.py:602] Starting vLLM server on http://0.0.0.0:9000")

    def cli(args: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(args, 0, json.dumps(OUTPUTS)) if "output" in args else states(args)

    def no_output(args: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(args, 1, "", "none") if "output" in args else states(args)

    for run, reached, name in ((cli, True, None), (cli, False, "port-not-listening"), (no_output, True, "port-not")):
        code = logs(asked("--why", "--json"), run=run, answers=lambda _, reached=reached: reached)
        why = json.loads(capsys.readouterr().out)["servers"][0]["why"]
        assert (code, bool(why)) == (int(name is None), name is not None)
        assert name is None or why["name"].startswith(name)


def test_a_container_that_ended_on_vastai_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("vastai")
    from providers.vastai.client import SPACING_S, Vast

    monkeypatch.setattr("providers.vastai.client.SPACING_S", dict.fromkeys(SPACING_S, 0.0))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with VastEmulator([offer_row(1)]) as market:
        market.fates[50001] = "exits"
        monkeypatch.setenv("VAST_API_KEY", market.key)
        monkeypatch.setenv("VLLM_ANYWHERE_VASTAI_URL", market.url)
        id = Vast(market.key, market.url).rent(
            1, {"image": "vllm/vllm-openai:v0.22.1", "disk": 36, "env": {"-p 8000:8000": "1"}, "label": "a/b/server/1"}
        )
        cli = Cli(dev=[resource("vllm-anywhere:vastai:Instance", id)])
        status, server = told("--why", cli=cli, capsys=capsys)
    assert (status, server["platform"]) == (0, "vastai")
    assert server["why"]["fix"] == "pulumi config set -s dev --path vllm-anywhere:model.max_len 4096"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_cure_names_the_stack_wherever_it_sets_its_config(rule: Any) -> None:
    from ops.logs import cure

    assert len(re.findall("pulumi config set(?! -s dev)", cure(rule.fix, "dev"))) == 0


def test_of_an_unfinished_replacement_the_new_server_is_read(
    runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = crashed_pod(runpod, "INFO new")
    cli.stacks["organization/shop/dev"].append(resource(POD_TOKEN, "gone", delete=True))
    status, server = told(cli=cli, capsys=capsys)
    assert (status, server["lines"]) == (0, ["INFO new"])


def test_several_servers_are_told_apart(runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    runpod.boot(log=["INFO one of two"], broken=True)
    with client_of(runpod) as api:
        ids = [created(api, "/v2/pods", POD)["id"] for _ in range(2)]
    cli = Cli(dev=[resource(POD_TOKEN, id, name=f"server-{n}") for n, id in enumerate(ids, 1)])
    logs(asked(), run=cli)
    assert [line for line in capsys.readouterr().out.splitlines() if "server-" in line] == [
        f"server-1 on runpod ({ids[0]})",
        f"server-2 on runpod ({ids[1]})",
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_of_several_servers_those_that_can_be_read_are_shown_and_the_others_said_at_the_end(
    runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    runpod.boot(log=["INFO one of two"], broken=True)
    with client_of(runpod) as api:
        lost, read = (created(api, "/v2/pods", POD)["id"] for _ in range(2))
    runpod.faults.add(Fault(path=f"/{lost}/logs", kind=Kind.REFUSED, status=503))
    cli = Cli(dev=[resource(POD_TOKEN, lost, name="server-1"), resource(POD_TOKEN, read, name="server-2")])
    with pytest.raises(OpsError, match=rf"^the log of server-1 \({lost}\) can't be read: .*HTTP 503"):
        logs(asked(*["--json"] * as_json), run=cli)
    out = capsys.readouterr().out
    if not as_json:
        assert out == f"server-2 on runpod ({read})\nINFO one of two\n"
        return
    said = [(one["server"], one["lines"], bool(one["problem"])) for one in json.loads(out)["servers"]]
    assert said == [("server-1", [], True), ("server-2", ["INFO one of two"], False)]


def test_a_gateway_on_this_machine_has_a_log_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_ANYWHERE_STATE", str(tmp_path))
    label = "shop/dev/server/1"
    folder = GatewayMachine().folder(label)
    folder.mkdir(parents=True)
    (folder / "server.log").write_text("INFO LiteLLM\n")
    status, server = told(cli=Cli(dev=[resource("vllm-anywhere:gateway:Proxy", label)]), capsys=capsys)
    assert (status, server["platform"], server["lines"]) == (0, "gateway", ["INFO LiteLLM"])


def test_a_stack_without_a_server_says_what_deploys_one() -> None:
    with pytest.raises(OpsError, match=r"no server whose log could be read; `pulumi up -s dev`"):
        logs(asked(), run=Cli(dev=[]))
    with pytest.raises(OpsError, match="no stack named 'dev' found"):
        logs(asked(), run=Cli())


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(path="/logs", kind=Kind.REFUSED, status=503), "HTTP 503"),
        (Fault(path="/v2/pods", kind=Kind.DROPPED), "no answer from RunPod"),
    ],
)
def test_a_log_that_is_not_handed_out_is_an_error_and_never_an_empty_log(
    runpod: RunPodEmulator, fault: Fault, says: str
) -> None:
    cli = crashed_pod(runpod, "INFO one")
    runpod.faults.add(fault)
    with pytest.raises(OpsError, match=says):
        logs(asked(), run=cli)


def test_without_a_key_the_error_says_where_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNPOD_API_KEY", raising=False)
    with pytest.raises(OpsError, match="RUNPOD_API_KEY is not set"):
        logs(asked(), run=Cli(dev=[resource(POD_TOKEN, "abc")]))


@pytest.mark.parametrize(
    "name", ["ACME_API_KEY", "HF_TOKEN", "MODAL_TOKEN_SECRET", "PULUMI_CONFIG_PASSPHRASE", "RUNPOD_REGISTRY_PASSWORD"]
)
def test_keys_in_a_line_are_masked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "0123456789abcdef")
    secrets = ["hf_" + "a" * 34, "rpa_" + "B" * 40, "sk-" + "c-_" * 12, "0123456789abcdef"]
    line = masked(f"args: --api-key {secrets[2]} token={secrets[0]} {secrets[1]} {secrets[3]}, task-123 sk-short")
    assert line == "args: --api-key [secret] token=[secret] [secret] [secret], task-123 sk-short"


@pytest.mark.engine
@pytest.mark.parametrize(("platform", "says"), [("local", "build_info"), ("fake", "fake vLLM")])
def test_the_server_of_a_real_state_is_found(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    platform: str,
    says: str,
) -> None:
    project.config("provider", platform)
    project.up()
    monkeypatch.setenv("VLLM_ANYWHERE_STATE", project.env["VLLM_ANYWHERE_STATE"])
    arguments = asked("--json", "-n", "200")
    arguments.stack = "test"
    assert logs(arguments, run=lambda args: pulumi_command(args, project.env)) == 0
    (server,) = json.loads(capsys.readouterr().out)["servers"]
    assert server["platform"] == platform
    assert says in "\n".join(server["lines"])
