"""The start script, run in plain sh with a stand-in for vLLM, and with the real guard before it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving import tls
from serving.spec import DeploymentSpec, SpecError
from serving.start import fitting, one_line, packed, refused_args, start_env, start_script, worker_env
from serving.vllm import serve_args

SHELLS = [found for name in ("sh", "dash", "bash") if (found := shutil.which(name))]
VASTAI_LIMIT = 4048  # Characters of Vast.ai's start command; the lower of the two figures that are told.

RECORD = f"""\
#!{sys.executable} -S
import json, os, sys
print(json.dumps({{"args": sys.argv[1:], "env": dict(os.environ), "mask": os.umask(0), "pid": os.getpid()}}))
"""

SERVE = f"""\
#!{sys.executable}
import argparse, importlib, uvicorn
parser = argparse.ArgumentParser()
for name in ("--host", "--middleware", "--ssl-keyfile", "--ssl-certfile"):
    parser.add_argument(name)
parser.add_argument("--port", type=int)
given, _ = parser.parse_known_args()
module, name = given.middleware.rsplit(".", 1)

async def app(scope, receive, send):
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": scope["path"].encode()}})

guarded = getattr(importlib.import_module(module), name)(app)
uvicorn.run(guarded, host=given.host, port=given.port, ssl_keyfile=given.ssl_keyfile,
            ssl_certfile=given.ssl_certfile, lifespan="off", log_level="critical")
"""


@pytest.fixture(scope="module")
def bin_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_in(tmp_path_factory.mktemp("bin"), RECORD)


def stand_in(folder: Path, program: str) -> Path:
    vllm = folder / "vllm"
    vllm.write_text(program)
    vllm.chmod(0o755)
    return folder


def spec_with(*extra: str) -> DeploymentSpec:
    return DeploymentSpec.model_validate({"engine": {"extra_args": list(extra)}})


def environment(bin_path: Path, tmp_path: Path, **more: str) -> dict[str, str]:
    return {"PATH": f"{bin_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path), **start_env(api_key="sk-1"), **more}


def run(script: str, env: Mapping[str, str], shell: str = SHELLS[0]) -> dict[str, Any]:
    """What the stand-in saw. The script is an argument of `sh -c`, as the platforms pass it."""
    done = subprocess.run([shell, "-c", script], env=dict(env), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("form", [lambda script: script, packed], ids=["plain", "packed"])
def test_vllm_gets_the_flags_of_the_spec_behind_the_guard(
    bin_path: Path, tmp_path: Path, shell: str, form: Any
) -> None:
    spec = DeploymentSpec()
    script = form(start_script(spec, half=True, port=8000, tls=False))
    seen = run(script, environment(bin_path, tmp_path), shell)
    door = ["--host", "0.0.0.0", "--port", "8000", "--middleware", "vllm_anywhere_guard.Guard"]
    assert seen["args"] == ["serve", *serve_args(spec, half=True), *door]
    written = (Path(seen["env"]["PYTHONPATH"]) / "vllm_anywhere_guard.py").read_bytes()
    assert written == files("serving").joinpath("data/guard.py").read_bytes()


HOSTILE = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    [
        "$(touch owned)",
        "`touch owned`",
        "'; touch owned; '",
        '"',
        "a\nEND_OF_GUARD\nb",
        "\\",
        "${HOME}",
        "*",
        "",
        "!!",
        "%b",
    ]
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(HOSTILE, max_size=4), form=st.sampled_from([str, packed]), shell=st.sampled_from(SHELLS))
def test_no_value_of_the_spec_is_read_as_shell(
    bin_path: Path, tmp_path: Path, values: list[str], form: Any, shell: str
) -> None:
    spec = DeploymentSpec()
    spec = spec.model_copy(update={"engine": spec.engine.model_copy(update={"extra_args": ("--x", *values)})})
    if refused_args(spec):
        return
    seen = run(form(start_script(spec, half=False, port=1, tls=False)), environment(bin_path, tmp_path), shell)
    assert seen["args"][1:-6] == list(serve_args(spec, half=False))


def test_no_secret_is_an_argument_or_in_the_script(bin_path: Path, tmp_path: Path) -> None:
    script = start_script(DeploymentSpec(), half=False, port=8000, tls=False)
    seen = run(script, environment(bin_path, tmp_path, HF_TOKEN="hf_1"))
    assert not [arg for arg in seen["args"] if "sk-1" in arg or "hf_1" in arg]
    assert (seen["env"]["VLLM_API_KEY"], seen["env"]["HF_TOKEN"]) == ("sk-1", "hf_1")


@pytest.mark.parametrize("form", [str, one_line], ids=["lines", "one line"])
def test_the_tls_key_leaves_the_environment_for_a_private_file(bin_path: Path, tmp_path: Path, form: Any) -> None:
    server = tls.issue(tls.new_authority("x", now=datetime.now(UTC)), "x.internal", [], now=datetime.now(UTC))
    env = environment(bin_path, tmp_path) | start_env(
        api_key="sk-1", tls_key=form(server.key_pem), tls_cert=form(server.cert_pem)
    )
    seen = run(start_script(DeploymentSpec(), half=False, port=8000, tls=True), env)
    *_, key_flag, key_file, cert_flag, cert_file = seen["args"]
    assert (key_flag, cert_flag) == ("--ssl-keyfile", "--ssl-certfile")
    assert Path(key_file).stat().st_mode & 0o777 == 0o600
    assert Path(key_file).parent.stat().st_mode & 0o777 == 0o700
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert_file, key_file)
    assert not [value for value in seen["env"].values() if "PRIVATE KEY" in value]
    assert "PRIVATE KEY" not in " ".join(seen["args"])


def test_vllm_makes_its_own_files_as_it_would_without_us(bin_path: Path, tmp_path: Path) -> None:
    seen = run(start_script(DeploymentSpec(), half=False, port=1, tls=False), environment(bin_path, tmp_path))
    mask = os.umask(0)
    os.umask(mask)
    assert seen["mask"] == mask


def test_a_python_path_that_is_there_stays(bin_path: Path, tmp_path: Path) -> None:
    env = environment(bin_path, tmp_path, PYTHONPATH="/opt/plugins")
    seen = run(start_script(DeploymentSpec(), half=False, port=1, tls=False), env)
    assert seen["env"]["PYTHONPATH"].endswith(":/opt/plugins")


def test_the_front_end_that_knows_no_middleware_is_switched_off(bin_path: Path, tmp_path: Path) -> None:
    env = environment(bin_path, tmp_path, VLLM_USE_RUST_FRONTEND="1")
    seen = run(start_script(DeploymentSpec(), half=False, port=1, tls=False), env)
    assert seen["env"]["VLLM_USE_RUST_FRONTEND"] == "0"


@pytest.mark.parametrize("form", [str, packed], ids=["plain", "packed"])
def test_the_process_that_the_platform_stops_is_vllm_itself(bin_path: Path, tmp_path: Path, form: Any) -> None:
    script = form(start_script(DeploymentSpec(), half=False, port=1, tls=False))
    with subprocess.Popen(["sh", "-c", script], env=environment(bin_path, tmp_path), stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert json.load(process.stdout)["pid"] == process.pid


def test_where_nothing_can_be_written_no_server_is_started(bin_path: Path, tmp_path: Path) -> None:
    env = environment(bin_path, tmp_path / "missing")
    script = start_script(DeploymentSpec(), half=False, port=1, tls=False)
    done = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode != 0, done.stdout) == (True, "")


@pytest.mark.parametrize("missing", ["VLLM_API_KEY", "VLLM_ANYWHERE_TLS_KEY", "VLLM_ANYWHERE_TLS_CERT"])
@pytest.mark.parametrize("shell", SHELLS)
def test_without_what_it_needs_no_server_is_started(bin_path: Path, tmp_path: Path, shell: str, missing: str) -> None:
    env = environment(bin_path, tmp_path, VLLM_ANYWHERE_TLS_KEY="k", VLLM_ANYWHERE_TLS_CERT="c") | {missing: ""}
    script = start_script(DeploymentSpec(), half=False, port=1, tls=True)
    done = subprocess.run([shell, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stdout == ""
    assert missing in done.stderr


# Length.


def longest_spec() -> DeploymentSpec:
    """Every field of the spec that becomes an argument, as long as it may be; the rest as people have it."""
    noise = base64.b64encode(bytes(range(256))).decode().replace("+", "x").replace("=", "")
    return DeploymentSpec.model_validate(
        {
            "model": {
                "name": f"{noise[:96]}/{noise[96:192]}",
                "revision": noise[100:140],
                "served_name": noise[3:99],
                "max_len": 10_485_760,
                "quantization": "compressed-tensors",
                "kv_cache_dtype": "fp8",
            },
            "engine": {
                "max_num_seqs": 4096,
                "max_num_batched_tokens": 1_048_576,
                "enforce_eager": True,
                "extra_args": [
                    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--reasoning-parser", "qwen3"),
                    *("--generation-config", "vllm", "--no-enable-prefix-caching", "--seed", "1"),
                    *(
                        "--speculative-config",
                        '{"model": "RedHatAI/Qwen3-8B-speculator.eagle3", "num_speculative_tokens": 3}',
                    ),
                ],
            },
            "hardware": {"gpu_count": 8},
        }
    )


def test_the_longest_sensible_spec_fits_the_shortest_limit_when_packed() -> None:
    script = start_script(longest_spec(), half=False, port=65535, tls=True)
    assert len(script) > VASTAI_LIMIT
    assert len(fitting(script, VASTAI_LIMIT)) <= VASTAI_LIMIT


def test_a_script_that_fits_stays_readable() -> None:
    script = start_script(DeploymentSpec(), half=False, port=8000, tls=False)
    assert fitting(script, len(script)) == script


def test_what_fits_nowhere_names_the_key_and_both_lengths() -> None:
    spec = spec_with(*(f"--flag-{base64.b64encode(os.urandom(30)).decode()}" for _ in range(100)))
    with pytest.raises(
        SpecError, match=r"vllm-anywhere:engine\.extra_args: the start command is \d+ characters .* 4048"
    ):
        fitting(start_script(spec, half=False, port=1, tls=False), VASTAI_LIMIT)


def test_the_same_spec_gives_the_same_text_later_so_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", iter([1e9, 2e9]).__next__)
    first, second = (packed(start_script(DeploymentSpec(), half=True, port=1, tls=True)) for _ in range(2))
    assert first == second


# What would get around the guard.


@pytest.mark.parametrize(
    "args",
    [
        ["--port", "9"],
        ["--host=::"],
        ["--root_path", "/x"],
        ["--root-p", "/x"],
        ["--ssl-keyfile=/x"],
        ["--grpc"],
        ["--headless"],
        ["--config", "x.yaml"],
        ["--"],
    ],
)
def test_arguments_that_open_another_door_are_refused_by_key(args: list[str]) -> None:
    for render in (partial(start_script, port=1, tls=False), worker_env):
        with pytest.raises(SpecError) as raised:
            render(spec_with(*args), half=False)
        assert [(problem.key, problem.value) for problem in raised.value.problems] == [
            ("vllm-anywhere:engine.extra_args", args[0])
        ]


@pytest.mark.parametrize("args", [["--seed", "1"], ["--config-format", "hf"], ["--hf-overrides", "{}"], ["-O3"]])
def test_other_arguments_are_the_users_own(args: list[str]) -> None:
    assert refused_args(spec_with(*args)) == ()


# With the real guard under a real server.


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def served(tmp_path: Path, port: int) -> Iterator[httpx.Client]:
    authority = tls.new_authority("x", now=datetime.now(UTC))
    server = tls.issue(authority, "x.internal", ["127.0.0.1"], now=datetime.now(UTC))
    folder = tmp_path / "bin"
    folder.mkdir()
    env = environment(stand_in(folder, SERVE), tmp_path) | start_env(
        api_key="sk-1", previous_key="sk-0", tls_key=one_line(server.key_pem), tls_cert=one_line(server.cert_pem)
    )
    script = packed(start_script(DeploymentSpec(), half=False, port=port, tls=True))
    process = subprocess.Popen(["sh", "-c", script], env=env)
    with httpx.Client(
        base_url=f"https://127.0.0.1:{port}", verify=tls.context(authority.cert_pem), trust_env=False
    ) as client:
        wait_for(client, process)
        yield client
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=10)


def wait_for(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            client.get("/health").raise_for_status()
        except httpx.TransportError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"the server ended with {process.returncode}")


def test_what_the_script_starts_serves_the_api_over_tls_to_who_has_a_key(served: httpx.Client) -> None:
    statuses = [
        served.request(method, path, headers={"Authorization": f"Bearer {key}"} if key else {}).status_code
        for method, path, key in [
            ("GET", "/health", ""),
            ("GET", "/v1/models", ""),
            ("GET", "/v1/models", "sk-1"),
            ("POST", "/v1/chat/completions", "sk-0"),
            ("POST", "/invocations", "sk-1"),
        ]
    ]
    assert statuses == [200, 401, 200, 200, 404]


# RunPod's queue worker.


def test_the_worker_is_given_the_same_settings_by_its_own_names() -> None:
    spec = DeploymentSpec.model_validate(
        {
            "model": {"name": "Qwen/Qwen3-4B-AWQ", "revision": "abc", "served_name": "qwen3-4b", "quantization": "awq"},
            "engine": {"enforce_eager": True, "extra_args": ["--seed", "a b"]},
        }
    )
    assert worker_env(spec, half=False) == {
        "MODEL_NAME": "Qwen/Qwen3-4B-AWQ",
        "MODEL_REVISION": "abc",
        "OPENAI_SERVED_MODEL_NAME_OVERRIDE": "qwen3-4b",
        "MAX_MODEL_LEN": "8192",
        "GPU_MEMORY_UTILIZATION": "0.85",
        "MAX_NUM_SEQS": "256",
        "DTYPE": "auto",
        "QUANTIZATION": "awq",
        "ENFORCE_EAGER": "true",
        "VLLM_EXTRA_ARGS": "--seed 'a b'",
    }
