"""One VM that runs: `python -m tests.doubles.gcp.vm <cloud's folder> <instance's id>`, detached from the plugin.

It boots as the real one does: the instance's own startup script is run by bash, below a folder instead of `/`
(`VLLM_ANYWHERE_ROOT`), with the commands of `vmbin/` first on PATH, and with a metadata server and a Secret Manager of
its own (`GCE_METADATA_HOST`, `VLLM_ANYWHERE_SECRETS_URL`). The unit that the script starts runs its container as
processes of this machine, with llama.cpp where vLLM would be (`container.py`). All of that is one session, which ends
with the instance. The serial port's text is in `serial.log`.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from providers.gateway.client import litellm_python
from tests.doubles.gcp.cloud import Cloud, Record
from tests.doubles.gcp.kinds import short

ROOT = Path(__file__).resolve().parents[3]
VMBIN = Path(__file__).with_name("vmbin")
ADDRESS = "DOUBLE_ADDRESS"
CLOUD = "DOUBLE_CLOUD"
CONSOLE = "DOUBLE_CONSOLE"
INSTANCE = "DOUBLE_INSTANCE"
LITELLM = "DOUBLE_LITELLM"
PYTHON = "DOUBLE_PYTHON"
_WATCH_S = 0.1
_PREFIX = "[   30.000000] google_metadata_script_runner[811]: startup-script: "
"""What the serial port has before each line of a startup script."""


def folder(cloud: Cloud, record: Record) -> Path:
    return cloud.folder / "vms" / record.name


def power_on(cloud: Cloud, record: Record) -> None:
    """Start the VM's process; returns at once, as the API does when the machine runs."""
    home = folder(cloud, record)
    home.mkdir(parents=True, exist_ok=True)
    with (home / "serial.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "tests.doubles.gcp.vm", str(cloud.folder), record.id],
            cwd=ROOT,
            # The engine hands the stack's config to its plugins in the environment, secrets in clear.
            env={name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def wait_until_off(cloud: Cloud, record: Record, patience_s: float = 20.0) -> None:
    """Return once the process is gone that `record`, by now not running or not there, had."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            with (folder(cloud, record) / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError(f"{record.id} does not end")


def external_address(record: Record) -> str:
    """The address under which the VM is reached from outside; "" when it has none."""
    for interface in record.outputs.get("networkInterfaces", []):
        for access in interface.get("accessConfigs", []):
            return str(access.get("natIp", ""))
    return ""


def startup_script(record: Record) -> str:
    outputs = record.outputs
    return str(outputs.get("metadataStartupScript") or outputs.get("metadata", {}).get("startup-script", ""))


def main() -> None:
    """Boot, and run until the instance does not."""
    cloud, id = Cloud(Path(sys.argv[1])), sys.argv[2]
    record = cloud.get(id, "Instance")
    if record is None:
        return
    boot = record.hidden["boot"]
    home = folder(cloud, record)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        google = _google(cloud, record)
        script = home / "startup-script"
        script.write_text(startup_script(record))
        subprocess.Popen(
            ["sh", "-c", f'bash "$0" 2>&1 | sed -u "s|^|{_PREFIX}|"', str(script)],
            env=_environment(cloud, record, home, google.server_port),
            stdin=subprocess.DEVNULL,
        )
        while cloud.owner_lives:
            now = cloud.get(id, "Instance")
            if now is None or now.outputs["currentStatus"] != "RUNNING" or now.hidden["boot"] != boot:
                break
            time.sleep(_WATCH_S)
        os.killpg(0, signal.SIGKILL)


def _environment(cloud: Cloud, record: Record, home: Path, port: int) -> dict[str, str]:
    return {
        "PATH": os.pathsep.join((str(VMBIN), str(Path(sys.executable).parent), "/usr/bin", "/bin")),
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "VLLM_ANYWHERE_ROOT": str(home / "root"),
        "GCE_METADATA_HOST": f"127.0.0.1:{port}",
        "VLLM_ANYWHERE_SECRETS_URL": f"http://127.0.0.1:{port}/v1",
        "VLLM_ANYWHERE_PAUSE_S": "0.05",
        "VLLM_ANYWHERE_KEYS_S": "1",
        "VLLM_ANYWHERE_ADDRESS": external_address(record) or "127.0.0.1",
        LITELLM: litellm_python(),
        PYTHON: sys.executable,
        ADDRESS: external_address(record) or "127.0.0.1",
        CONSOLE: str(home / "serial.log"),
        CLOUD: str(cloud.folder),
        INSTANCE: record.id,
    }


class Google:
    """What a VM can ask: its metadata server, and Secret Manager with its service account's token."""

    def __init__(self, cloud: Cloud, record: Record) -> None:
        self._cloud = cloud
        self._record = record
        self._token = secrets.token_hex(8)

    def metadata(self, path: str) -> str | None:
        account = self._record.outputs.get("serviceAccount")
        interface = self._record.outputs["networkInterfaces"][0]
        match path.split("/"):
            case ["instance", "service-accounts", "default", "token"] if account:
                return json.dumps({"access_token": self._token, "expires_in": 3599, "token_type": "Bearer"})
            case ["instance", "attributes", key]:
                return self._record.outputs.get("metadata", {}).get(key)
            case ["instance", "name" | "hostname"]:
                return self._record.name
            case ["instance", "zone"]:
                project = self._record.outputs["project"]
                return f"projects/{self._cloud.number(project)}/zones/{self._record.outputs['zone']}"
            case ["instance", "network-interfaces", "0", "access-configs", "0", "external-ip"]:
                return interface["accessConfigs"][0]["natIp"] if interface.get("accessConfigs") else None
            case ["project", "project-id"]:
                return str(self._record.outputs["project"])
            case _:
                return None

    def secret(self, name: str, token: str) -> tuple[int, dict[str, Any]]:
        """The answer to `versions.access`: status and body."""
        if token != f"Bearer {self._token}":
            return _error(401, "Request had invalid authentication credentials.")
        account = self._record.outputs["serviceAccount"]
        if not {"cloud-platform"} & {short(scope) for scope in account["scopes"]}:
            return _error(403, "Request had insufficient authentication scopes.")
        parent, _, wanted = name.rpartition("/versions/")
        versions = [each for each in self._cloud.all("SecretVersion") if _same_secret(each, parent)]
        found = [each for each in versions if wanted in ("latest", each.outputs["version"])]
        if not found or not self._may_read(str(found[-1].outputs["secret"]), account["email"]):
            return _error(403, f"Permission 'secretmanager.versions.access' denied for resource '{name}'.")
        newest = max(found, key=lambda each: int(each.outputs["version"]))
        data = str(newest.hidden.get("data") or newest.outputs["secretData"])
        payload = {"data": base64.b64encode(data.encode()).decode()}
        return 200, {"name": newest.outputs["name"], "payload": payload}

    def _may_read(self, secret: str, email: str) -> bool:
        project = self._record.outputs["project"]
        return any(
            each.outputs["role"] == "roles/secretmanager.secretAccessor"
            and each.outputs["member"] == f"serviceAccount:{email}"
            and each.outputs.get("secretId", secret) == secret
            and each.outputs.get("project") == project
            for kind in ("SecretIamMember", "IAMMember")
            for each in self._cloud.all(kind)
        )


def _google(cloud: Cloud, record: Record) -> ThreadingHTTPServer:
    google = Google(cloud, record)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if found := re.fullmatch(r"/v1/(.+):access", self.path):
                status, body = google.secret(found[1], self.headers.get("Authorization", ""))
                self._answer(status, json.dumps(body))
            elif self.headers.get("Metadata-Flavor") != "Google":
                self._answer(403, "Missing Metadata-Flavor:Google header.")
            else:
                text = google.metadata(self.path.removeprefix("/computeMetadata/v1/").split("?")[0])
                self._answer(404 if text is None else 200, text or "")

        def _answer(self, status: int, text: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        log_message: Callable[..., None] = staticmethod(lambda *_: None)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _same_secret(version: Record, parent: str) -> bool:
    return parent in (version.outputs["secret"], version.outputs["name"].rpartition("/versions/")[0])


def _error(code: int, message: str) -> tuple[int, dict[str, Any]]:
    return code, {"error": {"code": code, "message": message}}


if __name__ == "__main__":
    main()
