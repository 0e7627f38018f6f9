"""What an instance does when it boots, as cloud-init's user data. Pure; the parts are files in `data/`.

User data stays on the instance's disk, and may be read by whoever is root there. Of secrets it holds one, the key of
the door's certificate, with which nothing can be done but to stand in for this very instance.
"""

from __future__ import annotations

import json
from importlib.resources import files

from providers.lambda_cloud.door import Lock

_ETC = "/etc/vllm-anywhere"
_UNITS = "/etc/systemd/system"
_SERVICES = ("vllm-anywhere-door.service", "vllm-anywhere.service")


def user_data(image: str, script: str, lock: Lock) -> str:
    """The cloud-config: `image` runs `script` (`serving.start.start_script`) once the door was handed its secrets."""
    parts = [
        _file(f"{_ETC}/image", f"{image}\n"),
        _file(f"{_ETC}/start.sh", script),
        _file(f"{_ETC}/serve.sh", _data("serve.sh"), "0755"),
        _file(f"{_ETC}/door.py", _data("door.py")),
        _file(f"{_ETC}/door.pem", lock.pem, "0600"),
        _file(f"{_ETC}/token.sha256", f"{lock.token_sha256}\n", "0600"),
        *(_file(f"{_UNITS}/{name}", _data(name)) for name in _SERVICES),
    ]
    commands = [["systemctl", "daemon-reload"], ["systemctl", "enable", "--now", *_SERVICES]]
    # JSON is YAML too, and leaves nothing to quoting.
    return "#cloud-config\n" + json.dumps({"write_files": parts, "runcmd": commands}, indent=1) + "\n"


def _file(path: str, text: str, mode: str = "0644") -> dict[str, str]:
    return {"path": path, "owner": "root:root", "permissions": mode, "content": text}


def _data(name: str) -> str:
    return files("providers.lambda_cloud").joinpath("data", name).read_text(encoding="utf-8")
