"""Prometheus itself on the files of `vllm-anywhere monitor`: it scrapes with the key, and judges what it scraped.

How long an alert has to last is promtool's matter (test_monitor_rules): here a bad server's alerts become pending.
"""

from __future__ import annotations

import http.server
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from engine import ROOT, Project, answers
from prometheus_client import CollectorRegistry, start_http_server
from pydantic import SecretStr
from test_monitor_rules import METRICS

from ops.exporter import Book
from ops.monitor_dashboard import dashboard
from ops.monitor_files import Endpoint, monitor_files
from ops.monitor_folder import write
from ops.monitor_spend import Spend, read_spend
from ops.stack import pulumi_command
from serving import tls

PROMETHEUS = shutil.which("prometheus")
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(PROMETHEUS is None, reason="there is no Prometheus; Debian's and Ubuntu's package has it"),
    pytest.mark.xdist_group("prometheus"),
]
KEY = "sk-very-secret"
INTERVAL = "250ms"
PATIENCE_S = 60.0

TTFT, ITL = "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds"
GOOD = {
    f'{TTFT}_bucket{{le="0.25"}}': 96,
    f'{TTFT}_bucket{{le="0.5"}}': 100,
    f'{TTFT}_bucket{{le="1.0"}}': 100,
    f'{TTFT}_bucket{{le="+Inf"}}': 100,
    f'{ITL}_bucket{{le="0.05"}}': 990,
    f'{ITL}_bucket{{le="0.1"}}': 1000,
    f'{ITL}_bucket{{le="0.15"}}': 1000,
    f'{ITL}_bucket{{le="+Inf"}}': 1000,
    'http_requests_total{status="2xx"}': 1000,
    'http_requests_total{status="5xx"}': 1,
    'vllm:request_success_total{finished_reason="stop"}': 1000,
    'vllm:request_success_total{finished_reason="error"}': 1,
}
"""How much each counter of a good server has grown whenever it is asked."""
BAD = {
    **GOOD,
    f'{TTFT}_bucket{{le="0.25"}}': 10,
    f'{TTFT}_bucket{{le="0.5"}}': 20,
    f'{ITL}_bucket{{le="0.05"}}': 10,
    f'{ITL}_bucket{{le="0.1"}}': 20,
    'http_requests_total{status="5xx"}': 100,
    'vllm:request_success_total{finished_reason="error"}': 100,
}


@dataclass
class Server:
    """A server's `/metrics`, by script: counters grow by so much a scrape, gauges are what they are."""

    grow: dict[str, int]
    gauges: dict[str, float]
    key: str = KEY
    scrapes: int = 0
    refused: int = 0
    authority: tls.Certified | None = None
    url: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def text(self) -> str:
        with self._lock:
            self.scrapes += 1
            counted = {name: each * self.scrapes for name, each in self.grow.items()}
        return "".join(f"{name} {value}\n" for name, value in {**counted, **self.gauges}.items())

    @contextmanager
    def running(self, folder: Path) -> Iterator[Server]:
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                allowed = self.headers["Authorization"] == f"Bearer {server.key}" and self.path == "/metrics"
                body = server.text().encode() if allowed else b""
                server.refused += not allowed
                self.send_response(200 if allowed else 401)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                return None

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
            scheme = "http"
            if self.authority:
                leaf = tls.issue(self.authority, "x.vllm-anywhere.internal", ["127.0.0.1"], now=datetime.now(UTC))
                (folder / "leaf.pem").write_text(leaf.cert_pem + leaf.key_pem)
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(folder / "leaf.pem")
                listening.socket = context.wrap_socket(listening.socket, server_side=True)
                scheme = "https"
            self.url = f"{scheme}://127.0.0.1:{listening.server_port}/v1"
            thread = threading.Thread(target=listening.serve_forever)
            thread.start()
            try:
                yield self
            finally:
                listening.shutdown()
                thread.join()

    def endpoint(self, name: str) -> Endpoint:
        return Endpoint(name, self.url, SecretStr(KEY), ca_pem=self.authority.cert_pem if self.authority else "")


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus:
    """One that runs on a folder of files, at a quicker pace."""

    def __init__(self, port: int) -> None:
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False)

    @classmethod
    @contextmanager
    def on(cls, folder: Path) -> Iterator[Prometheus]:
        config = yaml.safe_load((folder / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL, "scrape_timeout": INTERVAL}
        quick = folder / "quick.yml"
        quick.write_text(yaml.safe_dump(config))
        port = free_port()
        assert PROMETHEUS
        with (folder / "prometheus.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    PROMETHEUS,
                    f"--config.file={quick}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield cls(port)
        except AssertionError:
            print((folder / "prometheus.log").read_text())
            raise
        finally:
            process.terminate()
            process.wait(30)

    def ask(self, path: str, **params: str) -> Any:
        answer = self._http.get(path, params=params).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, query: str) -> dict[str, str]:
        """A query's values by stack."""
        return {row["metric"].get("stack", ""): row["value"][1] for row in self.ask("/query", query=query)["result"]}

    def active(self) -> set[tuple[str, str]]:
        """Alerts that are pending or firing, each with its stack."""
        return {
            (alert["labels"]["alertname"], alert["labels"].get("stack", "")) for alert in self.ask("/alerts")["alerts"]
        }

    def rules(self) -> list[dict[str, Any]]:
        return self.ask("/rules")["groups"][0]["rules"]


def wait_until(done: Callable[[], Any]) -> None:
    """Ask again and again, since nobody can pass Prometheus a clock."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if done():
                return
        except (httpx.TransportError, IndexError, ValueError):
            pass
        assert time.monotonic() < deadline, "Prometheus did not come to it"
        time.sleep(0.1)


@contextmanager
def exporter(*spends: Spend) -> Iterator[str]:
    named = {one.stack: one for one in spends}
    book = Book(list(named), named.__getitem__, lambda text: None)
    book.refresh()
    registry = CollectorRegistry()
    registry.register(book)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def bill(stack: str, spent: int, billed: str) -> Spend:
    return Spend(stack, month_to_date=Decimal(spent), budget=Decimal(300), billed=Decimal(billed))


def test_a_bad_servers_alerts_become_active_and_a_good_ones_stay_silent(tmp_path: Path) -> None:
    authority = tls.new_authority("test", now=datetime.now(UTC) - timedelta(hours=1))
    good = Server(GOOD, {"vllm:kv_cache_usage_perc": 0.7, "vllm:num_requests_waiting": 3}, authority=authority)
    bad = Server(BAD, {"vllm:kv_cache_usage_perc": 0.97, "vllm:num_requests_waiting": 3})
    gone = Endpoint("gone", f"http://127.0.0.1:{free_port()}/v1", SecretStr(KEY))
    with ExitStack() as running:
        for server in (good, bad):
            running.enter_context(server.running(tmp_path))
        address = running.enter_context(
            exporter(bill("good", 100, "0.40"), bill("bad", 320, "0.80"), Spend("gone", "no such stack"))
        )
        folder = tmp_path / "monitor"
        write(folder, monitor_files([good.endpoint("good"), bad.endpoint("bad"), gone], exporter=address))
        prometheus = running.enter_context(Prometheus.on(folder))
        expected = {
            *((name, "bad") for name in ("SlowFirstToken", "SlowTokens", "Errors", "KvCacheNearlyFull")),
            *((name, "bad") for name in ("BudgetSpent", "SpendOverBudgetPace")),
            *((name, "gone") for name in ("EndpointDown", "SpendUnknown")),
        }
        wait_until(lambda: expected <= prometheus.active())
        # Long enough for a good server's figures to be judged as often as the bad one's.
        seen = good.scrapes
        wait_until(lambda: good.scrapes > seen + 8)
        assert prometheus.active() == expected
        assert prometheus.values('up{job="vllm-anywhere"}') == {"good": "1", "bad": "1", "gone": "0"}
        assert not good.refused + bad.refused
        rules = prometheus.rules()
        assert len(rules) == 15
        assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}
        for panel in dashboard()["panels"]:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "1m").replace("$stack", "good|bad")
                prometheus.ask("/query", query=query)


def test_a_new_key_and_a_new_address_are_taken_without_a_restart(tmp_path: Path) -> None:
    first, second = Server(GOOD, {}), Server(GOOD, {}, key="sk-rotated")
    folder = tmp_path / "monitor"
    with first.running(tmp_path), second.running(tmp_path):
        write(folder, monitor_files([first.endpoint("prod")]))
        with Prometheus.on(folder) as prometheus:
            wait_until(lambda: prometheus.values('up{job="vllm-anywhere"}') == {"prod": "1"})
            write(folder, monitor_files([second.endpoint("prod")]))
            wait_until(lambda: prometheus.values('up{job="vllm-anywhere"}') == {"prod": "0"})
            assert second.refused
            rotated = Endpoint("prod", second.url, SecretStr("sk-rotated"))
            assert write(folder, monitor_files([rotated])) == ["keys/prod.key"]
            wait_until(lambda: prometheus.values('up{job="vllm-anywhere"}') == {"prod": "1"})


@pytest.mark.engine
def test_the_local_stack_is_scraped_and_its_cost_is_read(project: Project, tmp_path: Path) -> None:
    project.up()
    folder = tmp_path / "monitor"
    told = vllm_anywhere(project, "monitor", "-s", "test", "--out", str(folder), "--exporter-at", "")
    assert "Start:" in told
    out = project.outputs()
    assert out["api_key"] not in told
    assert answers(out)
    text = httpx.get(
        out["endpoint"].removesuffix("/v1") + "/metrics", headers={"Authorization": f"Bearer {out['api_key']}"}
    ).text
    # The queries' names of llama.cpp's metrics are those that it really has.
    assert METRICS["llama.cpp"] <= {line.split(" ")[0] for line in text.splitlines()}
    with Prometheus.on(folder) as prometheus:
        wait_until(lambda: prometheus.values('up{job="vllm-anywhere"}') == {"test": "1"})
        wait_until(lambda: prometheus.values("llamacpp:requests_processing") == {"test": "0"})
        wait_until(lambda: all(rule["health"] == "ok" for rule in prometheus.rules()))
        assert prometheus.active() <= {("SlowTokens", "test")}
    run = partial(pulumi_command, env=project.env)
    found = read_spend("test", datetime.now(UTC), run)
    assert (found.problem, found.provider, found.hourly, found.complete) == ("", "local", 0, True)
    project.destroy()
    assert read_spend("test", datetime.now(UTC), run) == Spend("test")


def vllm_anywhere(project: Project, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "from ops.cli import main; main()", *args],
        cwd=ROOT,
        env=project.env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
