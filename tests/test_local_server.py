"""Server processes on this machine: real ones, with a stand-in for `vllm`."""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from providers.base import Interrupted, PlatformError
from providers.local.client import LocalMachine, parse_activity
from providers.local.resources import Server, ServerInputs
from providers.native import Context
from serving.guard import guard_source

LABEL = "shop/dev/server/1"
VLLM = """#!{python}
import http.server, json, os, sys
args = sys.argv[1:]
assert args[0] == "serve" and os.environ["VLLM_API_KEY"] == "sk-test" and "sk-test" not in " ".join(args)
if "--die" in args:
    sys.exit("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 146.00 MiB")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(args).encode())
http.server.HTTPServer(("127.0.0.1", int(args[args.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalMachine]:
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "vllm").write_text(VLLM.format(python=sys.executable))
    (bin / "vllm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("VLLM_ANYWHERE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("PULUMI_CONFIG", '{"vllm-anywhere:hf_token": "hf-secret"}')
    machine = LocalMachine()
    yield machine
    for label in machine.labels():
        if machine.is_running(label):
            machine.stop(label, time.sleep)


def context(cancelled: threading.Event | None = None) -> Context:
    event = cancelled or threading.Event()
    return Context("urn", lambda text: None, event.wait, time.monotonic, lambda: datetime.now(UTC))


def inputs(*args: str, timeout_s: int = 60) -> ServerInputs:
    return ServerInputs(
        engine="vllm",
        model="m",
        served_name="m",
        context_tokens=128,
        args=["m", *args],
        api_key=SecretStr("sk-test"),
        previous_key=SecretStr("sk-test"),
        label=LABEL,
        timeout_s=timeout_s,
    )


def test_vllm_is_started_with_the_flags_and_the_key_by_environment(machine: LocalMachine) -> None:
    outputs = Server().create(context(), inputs("--max-model-len", "128")).outputs
    said = httpx.get(f"http://127.0.0.1:{outputs.port}/", trust_env=False).json()
    assert said[:4] == ["serve", "m", "--max-model-len", "128"]
    environ = Path(f"/proc/{outputs.pid}/environ").read_text()
    assert "hf-secret" not in environ and "sk-test" not in environ
    Server().delete(context(), LABEL, outputs)
    assert not machine.is_running(LABEL)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{outputs.port}/", trust_env=False)
    assert machine.labels() == []


def test_a_server_that_stops_while_it_starts_says_why_and_leaves_nothing_running(machine: LocalMachine) -> None:
    with pytest.raises(PlatformError) as caught:
        Server().create(context(), inputs("--die"))
    assert "nothing is running now" in str(caught.value)
    assert "The GPU ran out of memory" in str(caught.value)
    assert "Tried to allocate 146.00 MiB" in str(caught.value)
    assert not machine.is_running(LABEL)
    assert machine.labels() == [], "state has no id of it, so no command would ever remove it"


def test_a_cancelled_create_leaves_nothing(machine: LocalMachine) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Interrupted):
        Server().create(context(cancelled), inputs())
    assert machine.labels() == []


def test_a_server_in_state_that_does_not_start_again_keeps_its_record(machine: LocalMachine) -> None:
    first = Server().create(context(), inputs()).outputs
    machine.stop(LABEL, time.sleep)
    with pytest.raises(PlatformError):
        Server().update(context(), LABEL, first, inputs(), inputs("--die"))
    assert machine.labels() == [LABEL]


def test_what_an_interrupted_create_left_is_adopted_when_it_is_the_same(machine: LocalMachine) -> None:
    first = Server().create(context(), inputs()).outputs
    assert Server().create(context(), inputs()).outputs.pid == first.pid
    other = Server().create(context(), inputs("--other")).outputs
    assert other.pid != first.pid
    assert machine.running(LABEL) is not None


def test_a_server_whose_starter_goes_before_it_is_ready_goes_too(machine: LocalMachine) -> None:
    want = inputs().model_dump(exclude={"label", "generation", "api_key", "previous_key", "status"})
    started = machine.start(LABEL, want, "sk-test")
    started.drop()
    deadline = time.monotonic() + 30
    while machine.is_running(LABEL) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not machine.is_running(LABEL)


def test_a_stopped_server_is_seen_and_started_again_on_its_port(machine: LocalMachine) -> None:
    first = Server().create(context(), inputs()).outputs
    machine.stop(LABEL, time.sleep)
    found = Server().read(context(), LABEL, None, None)
    assert found is not None
    assert (found.inputs.status, found.outputs.status, found.outputs.pid) == ("stopped", "stopped", 0)
    again = Server().update(context(), LABEL, found.outputs, inputs(), inputs()).outputs
    assert (again.status, again.port) == ("running", first.port)


def test_an_imported_server_has_the_inputs_it_was_started_with(machine: LocalMachine) -> None:
    Server().create(context(), inputs())
    found = Server().read(context(), LABEL, None, None)
    assert found is not None
    assert found.inputs == inputs()
    assert Server().read(context(), "shop/dev/server/9", None, None) is None


def test_nobody_else_can_read_the_key(machine: LocalMachine) -> None:
    Server().create(context(), inputs())
    folder = machine.folder(LABEL)
    assert stat.S_IMODE((folder / "keys").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "sk-test" not in (folder / "want.json").read_text()


def test_vllm_takes_new_keys_while_it_serves_and_llama_needs_another_server(machine: LocalMachine) -> None:
    first = Server().create(context(), inputs()).outputs
    said = httpx.get(f"http://127.0.0.1:{first.port}/", trust_env=False).json()
    assert said[said.index("--middleware") + 1] == "vllm_anywhere_guard.Guard"
    folder = machine.folder(LABEL)
    assert (folder / "vllm_anywhere_guard.py").read_text() == guard_source()

    keys = frozenset({"api_key", "previous_key"})
    assert Server().satisfied(keys | {"model"}, {"engine": "vllm"}, {}) == keys
    assert Server().satisfied(keys, {"engine": "llama"}, {}) == frozenset()
    new = inputs().model_copy(update={"api_key": SecretStr("sk-2")})
    updated = Server().update(context(), LABEL, first, inputs(), new).outputs
    assert updated.pid == first.pid
    assert (folder / "keys").read_text() == "VLLM_API_KEY=sk-2\nANYWHERE_PREVIOUS_KEY=sk-test\n"
    assert stat.S_IMODE((folder / "keys").stat().st_mode) == 0o600


@pytest.mark.parametrize("id", ["server", "./././.", "../../../etc", "a/b/../c", "a/b/c/d/e", ""])
def test_what_is_no_label_is_refused(machine: LocalMachine, id: str) -> None:
    with pytest.raises(PlatformError, match="no server's id"):
        machine.folder(id)


def test_deleting_what_never_was_is_success(machine: LocalMachine) -> None:
    outputs = Server().create(context(), inputs()).outputs
    for _ in range(2):
        Server().delete(context(), LABEL, outputs)


def test_only_a_port_of_your_own_makes_the_old_server_go_first() -> None:
    fixed = {"port": 8000}
    assert Server().delete_before_replace(fixed, fixed)
    assert not Server().delete_before_replace(fixed, {"port": 8001})
    assert not Server().delete_before_replace({"port": 0}, {"port": 0})


LLAMA = """# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
llamacpp:prompt_tokens_total 39
llamacpp:tokens_predicted_total 26
llamacpp:requests_processing 1
llamacpp:requests_deferred 2
"""
VLLM_METRICS = """vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 1.5e+03
vllm:generation_tokens_total{engine="0",model_name="m"} 20.0
"""


@pytest.mark.parametrize(("metrics", "activity"), [(LLAMA, (3, 65)), (VLLM_METRICS, (4, 1520)), ("", (0, 0))])
def test_activity_is_read_from_either_engines_metrics(metrics: str, activity: tuple[int, int]) -> None:
    assert parse_activity(metrics) == activity
