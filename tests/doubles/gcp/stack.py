"""The double's own stack, and a client of the VM in it: for tests of the double."""

from __future__ import annotations

import json
import shutil
import ssl
import threading
from collections.abc import Callable
from typing import Any

import httpx
from engine import ROOT, Project

from tests.doubles.gcp.cloud import VARIABLE, Cloud

KEY = "sk-a-key-for-tests"
# What the real script does with more care: the secret by the VM's own identity, then vLLM's container.
SCRIPT = r"""#!/bin/bash
set -eu
cat >"$VLLM_ANYWHERE_ROOT.start.sh" <<'END'
exec vllm serve Qwen/Qwen3-4B --served-model-name qwen3-4b --port 8000 FLAGS
END
cat >"$VLLM_ANYWHERE_ROOT.env.py" <<'END'
import base64, json, os, time, urllib.error, urllib.request

def get(url, **headers):
    return json.load(urllib.request.urlopen(urllib.request.Request(url, headers=headers)))

account = f"http://{os.environ['GCE_METADATA_HOST']}/computeMetadata/v1/instance/service-accounts/default/token"
while True:
    token = get(account, **{"Metadata-Flavor": "Google"})["access_token"]
    try:
        found = get(os.environ["VLLM_ANYWHERE_SECRETS_URL"] + "/VERSION:access", Authorization=f"Bearer {token}")
        break
    except urllib.error.HTTPError as error:
        print("refused with", error.code, flush=True)
        time.sleep(0.02)
with open(os.environ["VLLM_ANYWHERE_ROOT"] + ".env", "w") as file:
    file.write("VLLM_API_KEY=" + base64.b64decode(found["payload"]["data"]).decode())
END
python3 "$VLLM_ANYWHERE_ROOT.env.py"
docker pull --quiet vllm/vllm-openai:v0.22.1
exec docker run --rm --gpus all --env-file "$VLLM_ANYWHERE_ROOT.env" --publish 8000:8000 \
  --volume "$VLLM_ANYWHERE_ROOT.start.sh:/start.sh:ro" --entrypoint /bin/sh vllm/vllm-openai:v0.22.1 /start.sh
"""


class Stack:
    """A project whose program is the double's own, and the cloud that it works on."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.cloud = Cloud(project.folder / "cloud", owned=True)
        self._given: dict[str, Any] = {"script": SCRIPT.replace(" FLAGS", ""), "key": KEY}
        (project.folder / "Pulumi.yaml").unlink()
        (project.folder / "Pulumi.yaml").write_text(
            "name: vllm-anywhere\nruntime: {name: python, options: {toolchain: pip, virtualenv: .venv}}\n"
            "main: program\nstackConfigDir: stacks\n"
        )
        (project.folder / "program").mkdir()
        shutil.copy(ROOT / "tests/doubles/gcp/program.py", project.folder / "program/__main__.py")
        project.env["PATH"] = f"{ROOT / 'tests/doubles/gcp/bin'}:{project.env['PATH']}"
        project.env[VARIABLE] = str(self.cloud.folder)
        project.env["GOOGLE_PROJECT"] = "shop-1"
        self.give()

    def give(self, **given: Any) -> None:
        """Arguments over those of the program, by resource; those of earlier calls stay."""
        for name, value in given.items():
            before = self._given.get(name)
            self._given[name] = {**before, **value} if isinstance(before, dict) else value
        (self.project.folder / "program/given.json").write_text(json.dumps(self._given))

    def up(self, ok: bool = True) -> str:
        return self.project.up(ok=ok)

    def state(self, kind: str = "compute/instance:Instance") -> dict[str, Any]:
        """The only resource of a kind in Pulumi's state."""
        (found,) = self.project.resources(f"gcp:{kind}")
        return found

    def close(self) -> None:
        self.cloud.close()


def serves(ip: str, *, verify: ssl.SSLContext | bool = True, scheme: str = "http") -> dict[str, Any]:
    """What a VM's models are, once it has booted."""
    for _ in range(600):
        try:
            answer = httpx.get(
                f"{scheme}://{ip}:8000/v1/models",
                headers={"Authorization": f"Bearer {KEY}"},
                verify=verify,
                trust_env=False,
            )
        except httpx.TransportError:
            threading.Event().wait(0.05)
            continue
        if answer.status_code != 503:
            return answer.raise_for_status().json()
        threading.Event().wait(0.05)
    raise AssertionError(f"nothing serves at {ip}")


def eventually(true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it never came about")


def silent(ip: str) -> bool:
    try:
        httpx.get(f"http://{ip}:8000/health", trust_env=False)
    except httpx.TransportError:
        return True
    return False
