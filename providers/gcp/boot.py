"""What a VM does when it boots, as the text of its startup script. Pure; the parts are files in `data/`.

The script is the VM's whole configuration, so Compute Engine replaces the VM when it changes. It holds no secret:
anybody who may look at the VM can read it. Secrets are named, and fetched on the VM with the VM's own identity.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files

from providers.base import Ref, Text
from serving.start import TLS_CERT

CADDY_IMAGE = "caddy:2.10.0"
"""https://hub.docker.com/_/caddy"""


@dataclass(frozen=True)
class Boot:
    """What the startup script is made of.

    Attributes:
        image: the container, pinned.
        script: what runs in it (`serving.start.start_script`).
        publish: Docker's port mapping, such as `8000:8000`.
        keys: the reference to the secret whose newest version has the API keys, as lines `NAME=value`. The VM looks
            again every half a minute, so new keys count without a restart.
        secrets: environment variable -> the reference to a secret version's full name.
        certificate: the server's certificate (PEM), which is no secret; None when vLLM itself serves no TLS.
        hostname: the name for which Caddy gets a public certificate; "" for no Caddy.
        port: where Caddy finds vLLM.
        cloud_logging: Docker sends the server's lines to Cloud Logging too.
    """

    image: str
    script: str
    publish: str
    keys: Ref
    secrets: Mapping[str, Ref] = field(default_factory=dict[str, Ref])
    certificate: Ref | None = None
    hostname: str = ""
    port: int = 8000
    cloud_logging: bool = True


def startup_script(boot: Boot) -> Text:
    """The script; the names of secret versions and the certificate are known only once those exist."""
    slot = Slots()
    sources = [f"={slot(boot.keys)}/versions/latest", *(f"{name}={slot(ref)}" for name, ref in boot.secrets.items())]
    if boot.certificate is not None:
        sources.append(f"{TLS_CERT}=@tls.pem")
    logging = ["--log-driver", "gcplogs"] if boot.cloud_logging else []
    settings = "\n".join(
        (
            f"IMAGE={shlex.quote(boot.image)}",
            f"PUBLISH={boot.publish}",
            f"SECRETS=({shlex.join(sources)})",
            f"LOGGING=({shlex.join(logging)})",
        )
    )
    parts = {
        "settings": settings,
        "start_script": boot.script,
        "certificate": slot(boot.certificate) if boot.certificate is not None else "",
        "fetch_py": data("fetch.py"),
        "serve_sh": data("serve.sh"),
        "keys_sh": data("keys.sh"),
        "vllm_unit": data("vllm-anywhere.service"),
        "keys_unit": data("vllm-anywhere-keys.service"),
        "caddyfile": _caddyfile(boot) if boot.hostname else "",
        "caddy_unit": data("vllm-anywhere-caddy.service").replace("CADDY_IMAGE", CADDY_IMAGE),
    }
    return slot.script(parts, "startup.sh")


class Slots:
    """Places in a script for what is known only once other resources exist."""

    def __init__(self) -> None:
        self._refs: list[Ref] = []

    def __call__(self, ref: Ref) -> str:
        self._refs.append(ref)
        return f"\0{len(self._refs) - 1}\0"

    def script(self, parts: Mapping[str, str], main: str) -> Text:
        """A startup script: a function for each part, which prints it, and the file of `data/` that uses them."""
        functions = "".join(_function(name, text) for name, text in parts.items())
        whole = f"#!/bin/bash\n{functions}{data('common.sh')}{data(main)}"
        return Text(_template(whole, len(self._refs)), tuple(self._refs))


def _caddyfile(boot: Boot) -> str:
    return data("Caddyfile").replace("HOSTNAME", boot.hostname).replace("PORT", str(boot.port))


def _function(name: str, text: str) -> str:
    """A shell function that prints the text."""
    end = f"END_OF_{name.upper()}"
    assert end not in text.splitlines()
    body = f"{text.rstrip()}\n" if text else ""
    return f"{name}() {{\n  cat <<'{end}'\n{body}{end}\n}}\n\n"


def _template(text: str, count: int) -> str:
    """The text for `str.format`, with its marked slots as fields."""
    template = text.replace("{", "{{").replace("}", "}}")
    for index in range(count):
        template = template.replace(f"\0{index}\0", f"{{{index}}}")
    return template


def data(name: str) -> str:
    """The text of a file of `data/`."""
    return files("providers.gcp").joinpath("data", name).read_text(encoding="utf-8")
