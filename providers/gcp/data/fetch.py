"""Writes an environment file for Docker: `fetch.py FILE NAME=VERSION... NAME=@NEIGHBOUR... =VERSION...`.

VERSION is the full name of a version in Secret Manager; `@NEIGHBOUR` is a file beside this one, whose content is no
secret. Without a NAME the secret has lines `NAME=value` of its own. The file is replaced only when it changes. It runs
on the VM with the standard library alone, and shows no value in any message.
"""

import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

METADATA = f"http://{os.environ.get('GCE_METADATA_HOST', 'metadata.google.internal')}/computeMetadata/v1"
API = os.environ.get("VLLM_ANYWHERE_SECRETS_URL", "https://secretmanager.googleapis.com/v1")
PAUSE_S = float(os.environ.get("VLLM_ANYWHERE_PAUSE_S", "5"))
TRIES = 60
"""Five minutes: a role that was just granted takes that long (https://cloud.google.com/iam/docs/access-change-propagation)."""


def get(url: str, headers: dict[str, str]) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return json.load(answer)


def secret(version: str) -> str:
    token = get(f"{METADATA}/instance/service-accounts/default/token", {"Metadata-Flavor": "Google"})
    found = get(f"{API}/{version}:access", {"Authorization": f"Bearer {token['access_token']}"})
    return base64.b64decode(found["payload"]["data"]).decode()


def patiently(version: str) -> str:
    """The secret, asked for again as long as what refuses it may pass: IAM, the network, a restart of the API."""
    for left in reversed(range(TRIES)):
        try:
            return secret(version)
        except urllib.error.HTTPError as error:
            why, passes = f"HTTP {error.code}", error.code in (401, 403, 404, 408, 429) or error.code >= 500
        except (OSError, ValueError, KeyError) as error:
            why, passes = type(error).__name__, True
        if not left or not passes:
            raise SystemExit(f"vllm-anywhere: {version} can't be read: {why}")
        print(f"vllm-anywhere: {version} can't be read yet ({why}), {left} tries left", flush=True)
        time.sleep(PAUSE_S)
    raise AssertionError


def one_line(value: str) -> str:
    """Docker's environment files have one line a value; the start script turns `\\n` back into line breaks."""
    return value.strip().replace("\n", "\\n")


def value_of(source: str) -> str:
    if source.startswith("@"):
        return Path(__file__).with_name(source[1:]).read_text(encoding="utf-8")
    return patiently(source)


def line(name: str, value: str) -> str:
    return f"{name}={one_line(value)}\n" if name else f"{value.strip()}\n"


def main(path: str, *wanted: str) -> None:
    text = "".join(line(name, value_of(source)) for name, _, source in (one.partition("=") for one in wanted))
    file, new = Path(path), Path(f"{path}.new")
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    file.parent.mkdir(mode=0o700, exist_ok=True, parents=True)
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text, encoding="utf-8")
    new.replace(file)


if __name__ == "__main__":
    main(*sys.argv[1:])
