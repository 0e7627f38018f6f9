"""`vllm-anywhere doctor` against the emulated RunPod and Vast.ai, the cloud in memory and this machine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from emulators.faults import Fault, Kind
from emulators.runpod import RunPodEmulator
from emulators.vastai import VastEmulator, offer_row
from runpod_wire import POD, client_of, created
from states import Cli

from ops.doctor import add_doctor, check_balance, check_regions, check_stock, doctor
from ops.spec import read_spec
from ops.stack import OpsError
from providers.account import Balance, load_account
from providers.base import PlatformError, platform_names
from providers.local.account import engine_checks
from providers.local.pricing import Machine
from providers.model_shape import model_shape
from providers.runpod.account import ask_balance
from providers.runpod.client import Urls
from tests.offers import offer as an_offer

KEYS = ("RUNPOD_API_KEY", "VAST_API_KEY")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for key in KEYS:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("VLLM_ANYWHERE_STATE", str(tmp_path))
    monkeypatch.setattr("providers.runpod.account.LAG_S", 0.0)


@pytest.fixture
def runpod(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunPodEmulator]:
    with RunPodEmulator() as emulator:
        for name, value in emulator.env().items():
            monkeypatch.setenv(name, value)
        emulator.boot(start_s=3600)
        yield emulator


@pytest.fixture
def vastai(monkeypatch: pytest.MonkeyPatch) -> Iterator[VastEmulator]:
    from providers.vastai.client import SPACING_S

    monkeypatch.setattr("providers.vastai.client.SPACING_S", dict.fromkeys(SPACING_S, 0.0))
    with VastEmulator([offer_row(id) for id in (1, 2, 3)]) as market:
        monkeypatch.setenv("VAST_API_KEY", market.key)
        monkeypatch.setenv("VLLM_ANYWHERE_VASTAI_URL", market.url)
        yield market


Told = Callable[..., tuple[int, dict[tuple[str, str], dict[str, Any]]]]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Exit status, and the checks of a command line by platform and name."""

    def run(*words: str, cli: Cli | None = None) -> tuple[int, dict[tuple[str, str], dict[str, Any]]]:
        status = doctor(asked(*words, "--json"), run=cli or Cli())
        facts = json.loads(capsys.readouterr().out)
        assert facts["ok"] is (status == 0)
        return status, {(one["platform"], one["name"]): one for one in facts["checks"]}

    return run


def asked(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_doctor(parser.add_subparsers())
    return parser.parse_args(["doctor", *words])


def test_a_sound_account_on_runpod_passes_every_check(runpod: RunPodEmulator, told: Told) -> None:
    with client_of(runpod) as api:
        created(api, "/v2/pods", POD)
    runpod.options(has_secrets_api=True)
    status, checks = told("runpod")
    assert status == 0
    assert {name: one["verdict"] for (_, name), one in checks.items()} == {
        "key": "ok",
        "balance": "ok",
        "running": "ok",
        "regions": "warning",
        "stock": "ok",
        "secrets": "ok",
    }
    assert "1 with our label" in checks["runpod", "running"]["text"]
    assert "$100.00 left, and $0." in checks["runpod", "balance"]["text"]
    runpod.faults.add(Fault(path="/graphql", kind=Kind.LOST, status=410))
    _, checks = told("runpod")
    assert checks["runpod", "balance"]["verdict"] == "warning"
    assert "https://console.runpod.io/user/billing" in checks["runpod", "balance"]["next"]


def test_a_refused_key_is_said_once_without_the_key(
    runpod: RunPodEmulator, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_wrong_key")
    status, checks = told("runpod")
    assert status == 1
    assert list(checks) == [("runpod", "key")]
    assert "RunPod refused the key in RUNPOD_API_KEY" in checks["runpod", "key"]["text"]
    assert "rpa_wrong_key" not in json.dumps(list(checks.values()))


def test_a_refused_key_on_vastai_leaves_the_search_that_needs_none(
    vastai: VastEmulator, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAST_API_KEY", "not the right one")
    status, checks = told("vastai")
    assert status == 1
    assert {name: one["verdict"] for (_, name), one in checks.items()} == {"key": "failed", "stock": "ok"}


def test_a_named_platform_without_a_key_has_failed(told: Told) -> None:
    status, checks = told("vastai", "runpod")
    assert status == 1
    assert "export VAST_API_KEY=" in checks["vastai", "key"]["text"]
    assert "export RUNPOD_API_KEY=" in checks["runpod", "key"]["text"]


def test_without_names_only_platforms_with_a_key_are_asked_and_the_others_are_said(
    vastai: VastEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(asked(), run=Cli()) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Not looked at: " in out
    assert "runpod" in out.partition("Not looked at: ")[2]
    assert "vastai" not in out.partition("Not looked at: ")[2]
    assert "ok vastai key" in out
    assert "fake" not in out


def test_a_platform_that_does_not_answer_has_failed_by_the_deadline(runpod: RunPodEmulator, told: Told) -> None:
    runpod.faults.add(Fault(path="/v2/", kind=Kind.STALLED, times=0))
    status, checks = told("runpod", "fake", "--timeout", "1")
    assert status == 1
    assert "no answer" in checks["runpod", "key"]["text"]
    assert checks["fake", "key"]["verdict"] == "ok"


@pytest.mark.parametrize("kind", [Kind.GARBAGE, Kind.MALFORMED_LIST, Kind.REFUSED, Kind.DROPPED])
def test_a_catalogue_that_cannot_be_read_has_failed_and_is_no_empty_one(
    runpod: RunPodEmulator, told: Told, kind: Kind
) -> None:
    runpod.faults.add(Fault(path="/v2/catalog", kind=kind, times=0))
    status, checks = told("runpod")
    assert status == 1
    assert checks["runpod", "key"]["verdict"] == "ok"
    for name in ("regions", "stock"):
        assert checks["runpod", name]["verdict"] == "failed"
        assert "RunPod" in checks["runpod", name]["text"]


def test_a_rate_limit_is_waited_for_within_the_deadline(runpod: RunPodEmulator, told: Told) -> None:
    runpod.faults.add(Fault(path="/v2/catalog/datacenters", kind=Kind.RATE_LIMITED, retry_after_s=0))
    assert told("runpod")[0] == 0
    runpod.faults.add(Fault(path="/v2/catalog/datacenters", kind=Kind.RATE_LIMITED, retry_after_s=100))
    status, checks = told("runpod")
    assert status == 1
    assert "RunPod asks to wait 100 s" in checks["runpod", "regions"]["text"]


def test_what_the_spec_wants_is_looked_for_and_sold_out_is_said(runpod: RunPodEmulator, told: Told) -> None:
    for gpu in ("NVIDIA RTX A4000", "NVIDIA L4"):
        runpod.stock(gpu, "NONE")
    status, checks = told("runpod", "--set", "hardware.gpus=[RTX A4000, L4]")
    assert status == 1
    assert checks["runpod", "stock"]["text"].startswith("sold out: RTX A4000")
    assert checks["runpod", "stock"]["next"] == "vllm-anywhere compare --platform runpod"
    runpod.stock("NVIDIA L4", "LOW")
    status, checks = told("runpod", "--set", "hardware.gpus=[RTX A4000, L4]")
    assert status == 0
    assert checks["runpod", "stock"]["verdict"] == "warning"
    assert "L4: pod low" in checks["runpod", "stock"]["text"]


def test_a_gpu_that_a_platform_never_has_is_said(runpod: RunPodEmulator, told: Told) -> None:
    status, checks = told("runpod", "--set", "hardware.gpus=[T4]")
    assert status == 1
    assert checks["runpod", "stock"]["text"] == "nothing on offer will do: T4 is not on offer there"


@pytest.mark.parametrize(("credit", "verdict"), [(20.0, "ok"), (0.0, "failed"), (-1.5, "failed")])
def test_the_credit_on_vastai_decides(vastai: VastEmulator, told: Told, credit: float, verdict: str) -> None:
    vastai.credit = credit
    status, checks = told("vastai")
    assert checks["vastai", "balance"]["verdict"] == verdict
    assert status == (verdict == "failed")


@pytest.mark.parametrize(
    ("usd", "hourly", "verdict", "says"),
    [
        ("24.00", "1", "ok", "lasts 1 days"),
        ("23.99", "1", "warning", "lasts 24.0 hours"),
        ("5", "0", "ok", "nothing is spent now"),
        ("0", "0", "failed", "nothing can be rented"),
    ],
)
def test_a_balance_is_held_against_a_day_of_what_runs(usd: str, hourly: str, verdict: str, says: str) -> None:
    check = check_balance(Balance(Decimal(usd), Decimal(hourly), "https://example.org/billing"))
    assert check.verdict == verdict
    assert says in check.text
    assert verdict == "ok" or check.next == "add credit at https://example.org/billing"


@pytest.mark.parametrize(
    ("status", "body", "known"),
    [
        (200, '{"data": {"myself": {"clientBalance": 12.34, "currentSpendPerHr": 0.5}}}', ("12.34", "0.5")),
        (200, '{"data": {"myself": {"clientBalance": 12.34, "currentSpendPerHr": null}}}', ("12.34", "0")),
        (200, '{"errors": [{"message": "Something went wrong"}], "data": null}', None),
        (404, '{"title": "not found"}', None),
        (410, "gone", None),
        (200, '{"data": {"myself": {"clientBalance": "much", "currentSpendPerHr": 0}}}', None),
    ],
)
def test_runpods_balance_comes_from_graphql_while_that_lasts(
    status: int, body: str, known: tuple[str, str] | None
) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(status, text=body))
    found = ask_balance("rpa_key", Urls(), 1.0, transport)
    assert found == (None if known is None else (Decimal(known[0]), Decimal(known[1])))


def test_places_that_are_gone_or_new_are_named() -> None:
    spec = read_spec("", ["placement.regions=[EU-RO-1, EU-SE-1]"])
    assert check_regions("runpod", spec, frozenset({"EU-RO-1", "EU-SE-1"})).verdict == "ok"
    gone = check_regions("runpod", spec, frozenset({"EU-RO-1"}))
    assert (gone.verdict, "EU-SE-1" in gone.text) == ("warning", True)
    assert check_regions("runpod", spec, frozenset({"US-KS-2"})).verdict == "failed"
    new = check_regions("runpod", spec, frozenset({"EU-RO-1", "EU-SE-1", "EU-XX-9"}))
    assert (new.verdict, "EU-XX-9" in new.text) == ("warning", True)


def test_stock_of_a_market_is_counted_and_reasons_are_given_when_nothing_will_do() -> None:
    spec = read_spec("", ["hardware.gpus=[L4]", "placement.regions=[]", "placement.tier=secure"])
    l4 = an_offer("vastai", kind="instance", country="SE")
    model = model_shape(spec.model)
    assert check_stock("vastai", spec, model, [l4, l4]).text == "L4: instance 2 offers"
    refused = check_stock("vastai", spec, model, [replace(l4, tier="community")])
    assert refused.verdict == "failed"
    assert "a community host" in refused.text
    assert check_stock("vastai", spec, model, []).verdict == "failed"


@pytest.mark.parametrize(
    ("gpu", "vllm", "stand_in", "verdicts"),
    [
        (None, False, "model.gguf", {"GPU": "ok", "vLLM": "ok", "stand-in": "ok"}),
        (None, False, "", {"GPU": "ok", "vLLM": "ok", "stand-in": "failed"}),
        ("NVIDIA L4", True, "", {"GPU": "ok", "vLLM": "ok", "stand-in": "ok"}),
        ("NVIDIA L4", False, "model.gguf", {"GPU": "ok", "vLLM": "warning", "stand-in": "ok"}),
    ],
)
def test_this_machine_needs_one_thing_to_serve_with(
    gpu: str | None, vllm: bool, stand_in: str, verdicts: dict[str, str]
) -> None:
    machine = Machine(cores=2, memory_gib=8, gpu=gpu, capability=8.9, vllm=vllm, stand_in=stand_in)
    assert {check.name: check.verdict for check in engine_checks(machine, has_llama=True)} == verdicts
    assert all(check.next for check in engine_checks(machine, has_llama=True) if check.verdict != "ok")


def test_this_machine_is_looked_at_and_so_is_pulumi(told: Told) -> None:
    _, checks = told("local", cli=Cli(dev=[], prod=[]))
    assert checks["local", "Pulumi"]["text"] == "v3.259.0, stacks: 2"
    assert {"key", "running", "Python", "GPU", "vLLM", "stand-in", "state"} <= {name for _, name in checks}


def test_a_missing_pulumi_has_failed_and_hides_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    def missing(args: object) -> Any:
        raise OpsError("there is no `pulumi` on PATH")

    assert doctor(asked("local", "--json"), run=missing) == 1
    checks = {one["name"]: one for one in json.loads(capsys.readouterr().out)["checks"]}
    assert (checks["Pulumi"]["verdict"], checks["Pulumi"]["next"]) == ("failed", "source tools/env.sh")
    assert checks["running"]["verdict"] == "ok"


def test_an_unknown_platform_is_refused() -> None:
    with pytest.raises(OpsError, match="runpot is no platform"):
        doctor(asked("runpot"), run=Cli())


@pytest.mark.parametrize("platform", platform_names())
def test_every_platform_opens_an_account_or_says_why_not(platform: str) -> None:
    try:
        account = load_account(platform)(1.0)
    except PlatformError as error:
        assert str(error)
    else:
        assert callable(account.holdings)
