"""The files that Prometheus and Grafana need to watch endpoints, as data: paths, contents, modes.

prometheus.yml      a job an endpoint, the exporter, GPUs          alerts.yml       the rules of `serving.alerts`
targets/STACK.json  where the endpoint is now, read again          dashboard.json   the same signals, for Grafana
                    by Prometheus whenever it changes              .gitignore       keeps the keys out of git
keys/STACK.key      its bearer key, mode 0600                      ca/STACK.pem     its certificate authority
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import SecretStr

from ops.monitor_dashboard import dashboard
from ops.stack import file_name
from serving.alerts import ENDPOINT_JOB, JOBS, alert_rules

SCRAPE_S = 15
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):\d{1,5}")


@dataclass(frozen=True)
class Endpoint:
    """One endpoint to watch.

    Attributes:
        url: OpenAI base URL, ending in /v1.
        sleeps: whether it scales with its traffic, so that a scrape would wake a worker and bill it.
        ca_pem: its own certificate authority, "" for the public ones.
        servers: the URLs of all servers by their names, where there are several.
    """

    name: str
    url: str
    key: SecretStr = field(repr=False)
    provider: str = ""
    ca_pem: str = ""
    sleeps: bool = False
    servers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class File:
    """A text and who may read it."""

    text: str
    mode: int = 0o644


def is_address(text: str) -> bool:
    """Whether it is `host:port`, as Prometheus takes a target."""
    return bool(_ADDRESS.fullmatch(text))


def monitor_files(
    endpoints: Sequence[Endpoint], exporter: str = "", gpus: Mapping[str, str] | None = None, alertmanager: str = ""
) -> dict[str, File]:
    """Every file by its path, `/` between folders. What sleeps is not scraped.

    Args:
        exporter: `host:port` of `monitor --exporter` as Prometheus reaches it, "" without one.
        gpus: `host:port` of NVIDIA's dcgm-exporter by endpoint.
        alertmanager: `host:port` of what tells people of alerts, "" without one.
    """
    scraped = [one for one in endpoints if not one.sleeps]
    jobs = [_job(one) for one in scraped]
    files = {f"targets/{file_name(one.name)}.json": File(_target(one)) for one in scraped}
    for one in scraped:
        files[f"keys/{file_name(one.name)}.key"] = File(one.key.get_secret_value(), 0o600)
        if one.ca_pem:
            files[f"ca/{file_name(one.name)}.pem"] = File(one.ca_pem)
    if gpus:
        groups = [{"targets": [address], "labels": {"stack": name}} for name, address in gpus.items()]
        jobs.append({"job_name": JOBS["gpu"], "static_configs": groups})
    if exporter:
        # Its series name the stacks themselves.
        jobs.append({"job_name": JOBS["exporter"], "static_configs": [{"targets": [exporter]}]})
    config = {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
        "rule_files": ["alerts.yml"],
        **(
            {"alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}} if alertmanager else {}
        ),
        "scrape_configs": jobs,
    }
    return {
        "prometheus.yml": File(_yaml(config)),
        "alerts.yml": File(_yaml(alert_rules())),
        "dashboard.json": File(json.dumps(dashboard(), indent=2) + "\n"),
        ".gitignore": File("keys/\n"),
        **files,
    }


def _job(one: Endpoint) -> dict[str, Any]:
    """Each endpoint has a job of its own, since a key belongs to a job; their `job` label is the same (in its target).

    Prometheus reads key, certificate and target anew when they change, and resolves paths against its config file.
    """
    name = file_name(one.name)
    return {
        "job_name": f"{ENDPOINT_JOB}/{one.name}",
        "authorization": {"type": "Bearer", "credentials_file": f"keys/{name}.key"},
        **({"tls_config": {"ca_file": f"ca/{name}.pem"}} if one.ca_pem else {}),
        # A key that follows a redirect goes to somebody else.
        "follow_redirects": False,
        "file_sd_configs": [{"files": [f"targets/{name}.json"]}],
    }


def _target(one: Endpoint) -> str:
    groups = [_group(one, url, {"server": name}) for name, url in one.servers.items()] or [_group(one, one.url, {})]
    return json.dumps(groups, indent=2) + "\n"


def _group(one: Endpoint, address: str, more: Mapping[str, str]) -> dict[str, Any]:
    url = urlsplit(address)
    port = url.port or (443 if url.scheme == "https" else 80)
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    labels = {
        "job": ENDPOINT_JOB,
        "stack": one.name,
        **more,
        **({"provider": one.provider} if one.provider else {}),
        "__scheme__": url.scheme,
        "__metrics_path__": url.path.rstrip("/").removesuffix("/v1") + "/metrics",
    }
    return {"targets": [f"{host}:{port}"], "labels": labels}


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(content), sort_keys=False, width=1000, allow_unicode=True)
