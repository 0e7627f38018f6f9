"""Certificates: checked by a real TLS server, and by the clients that users have."""

from __future__ import annotations

import http.server
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from providers.base import PlatformError
from providers.native import Context
from providers.shared.certificate import Certificate, CertificateInputs, CertificateOutputs
from serving import tls

NOW = datetime.now(UTC)
NAME = tls.server_name("shop/dev/server")
AUTHORITY = tls.new_authority(NAME, now=NOW)

Serve = Callable[[tls.Certified], int]


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:
        return None


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a TLS server with a certificate, and tells its port."""
    servers: list[http.server.HTTPServer] = []

    def start(certified: tls.Certified) -> int:
        both = tmp_path / "server.pem"
        both.write_text(certified.key_pem + certified.cert_pem)
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(both)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
        server.socket = made.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server.server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def get(port: int, verify: ssl.SSLContext) -> str:
    with httpx.Client(verify=verify, trust_env=False) as client:
        return client.get(f"https://127.0.0.1:{port}/").text


def test_a_client_that_has_the_ca_file_reaches_the_server_at_its_address(serve: Serve, tmp_path: Path) -> None:
    port = serve(tls.issue(AUTHORITY, NAME, ["127.0.0.1"], now=NOW))
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(AUTHORITY.cert_pem)
    assert get(port, ssl.create_default_context(cafile=str(ca_file))) == "hello"


def test_the_chain_passes_the_strictest_check_that_python_has(serve: Serve) -> None:
    strict = tls.context(AUTHORITY.cert_pem)
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    assert get(serve(tls.issue(AUTHORITY, NAME, ["127.0.0.1"], now=NOW)), strict) == "hello"


def test_at_an_address_nobody_knew_only_a_client_that_takes_any_address_connects(serve: Serve) -> None:
    port = serve(tls.issue(AUTHORITY, NAME, ["203.0.113.7"], now=NOW))
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        get(port, tls.context(AUTHORITY.cert_pem))
    assert get(port, tls.context(AUTHORITY.cert_pem, any_address=True)) == "hello"


def test_any_address_is_not_anybody(serve: Serve) -> None:
    stranger = tls.new_authority(NAME, now=NOW)
    port = serve(tls.issue(stranger, NAME, ["127.0.0.1"], now=NOW))
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        get(port, tls.context(AUTHORITY.cert_pem, any_address=True))


def test_a_client_of_the_deployment_trusts_nobody_else() -> None:
    assert [found["subject"] for found in tls.context(AUTHORITY.cert_pem).get_ca_certs()] == [
        ((("commonName", f"CA of {NAME}"),),)
    ]


def test_an_expired_certificate_is_refused(serve: Serve) -> None:
    old = NOW - tls.SERVER_LIFE - timedelta(days=1)
    port = serve(tls.issue(AUTHORITY, NAME, ["127.0.0.1"], now=old))
    with pytest.raises(httpx.ConnectError, match="expired"):
        get(port, tls.context(AUTHORITY.cert_pem, any_address=True))


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
def test_curl_checks_the_address_or_else_the_fixed_name(serve: Serve, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(AUTHORITY.cert_pem)

    def curl(*args: str) -> str:
        command = ["curl", "-q", "-sS", "--noproxy", "*", "--cacert", str(ca_file), *args]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    known = serve(tls.issue(AUTHORITY, NAME, ["127.0.0.1"], now=NOW))
    assert curl(f"https://127.0.0.1:{known}/") == "hello"
    unknown = serve(tls.issue(AUTHORITY, NAME, ["203.0.113.7"], now=NOW))
    assert curl(f"https://127.0.0.1:{unknown}/") == ""
    assert curl("--connect-to", f"{NAME}:443:127.0.0.1:{unknown}", f"https://{NAME}/") == "hello"


def test_a_client_whose_clock_is_behind_connects(serve: Serve) -> None:
    port = serve(tls.issue(AUTHORITY, NAME, ["127.0.0.1"], now=NOW + timedelta(minutes=50)))
    assert get(port, tls.context(AUTHORITY.cert_pem)) == "hello"


def test_a_certificate_never_outlives_its_ca() -> None:
    late = NOW + tls.AUTHORITY_LIFE - timedelta(days=100)
    issued = tls.issue(AUTHORITY, NAME, [], now=late)
    assert tls.expiry(issued.cert_pem) <= tls.expiry(AUTHORITY.cert_pem)
    with pytest.raises(ValueError, match="expired"):
        tls.issue(AUTHORITY, NAME, [], now=NOW + tls.AUTHORITY_LIFE)


def test_no_key_shows_in_a_repr() -> None:
    assert "PRIVATE" not in repr(AUTHORITY)


@given(st.text(min_size=1, max_size=200))
def test_any_label_makes_a_name_that_a_certificate_can_hold(label: str) -> None:
    assert tls.bad_hosts([tls.server_name(label)]) == []


def test_labels_that_differ_in_signs_alone_have_different_names() -> None:
    assert tls.server_name("a/b") != tls.server_name("a-b")


@pytest.mark.parametrize(
    "host", ["", "a b", "http://x.org", "1.2.3.4:80", "*", "*.", "x..y", "-x.org", "x.org/", "Ä.org"]
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="neither an IP address nor a host name"):
        tls.issue(AUTHORITY, NAME, [host], now=NOW)


def test_a_wildcard_and_both_kinds_of_address_are_hosts() -> None:
    assert tls.bad_hosts(["*.sslip.io", "203.0.113.7", "2001:db8::1", "llm.example.org"]) == []


# The resource.

RESOURCE = Certificate()
INPUTS = CertificateInputs(name=NAME, hosts=["203.0.113.7"])


def at(now: datetime) -> Context:
    return Context("urn", lambda text: None, lambda seconds: False, lambda: 0.0, lambda: now)


def created(now: datetime = NOW) -> CertificateOutputs:
    return RESOURCE.create(at(now), INPUTS).outputs


def test_the_keys_are_secret_in_state() -> None:
    fields = CertificateOutputs.model_fields
    assert {name for name, field in fields.items() if field.annotation is SecretStr} == {"ca_key_pem", "key_pem"}
    assert "PRIVATE" not in repr(created())


def test_new_hosts_leave_clients_with_the_ca_that_they_have() -> None:
    first = created()
    moved = INPUTS.model_copy(update={"hosts": ["203.0.113.8"]})
    second = RESOURCE.update(at(NOW), NAME, first, INPUTS, moved).outputs
    assert second.ca_pem == first.ca_pem
    assert second.cert_pem != first.cert_pem
    assert second.hosts == ["203.0.113.8"]


@pytest.mark.parametrize(("days", "status"), [(0, "valid"), (790, "valid"), (796, "expiring"), (900, "expiring")])
def test_refresh_says_when_it_is_time_to_renew(days: int, status: str) -> None:
    found = RESOURCE.read(at(NOW + timedelta(days=days)), NAME, INPUTS, created())
    assert found and found.inputs.status == status


def test_renewal_brings_a_certificate_that_refresh_calls_valid() -> None:
    late = NOW + timedelta(days=800)
    outputs = RESOURCE.update(at(late), NAME, created(), INPUTS, INPUTS).outputs
    found = RESOURCE.read(at(late), NAME, INPUTS, outputs)
    assert found and found.inputs == INPUTS


def test_a_ca_at_its_end_is_renewed_too() -> None:
    first = created()
    late = NOW + tls.AUTHORITY_LIFE - timedelta(days=10)
    assert RESOURCE.update(at(late), NAME, first, INPUTS, INPUTS).outputs.ca_pem != first.ca_pem


def test_bad_hosts_fail_in_preview_against_their_property() -> None:
    failures = RESOURCE.check({"name": NAME, "hosts": ["http://x", "203.0.113.7"]})
    assert [(failure.property, failure.reason) for failure in failures] == [
        ("hosts", "neither an IP address nor a host name: http://x")
    ]


def test_hosts_that_only_the_run_will_know_pass_preview() -> None:
    assert RESOURCE.check({"name": NAME}) == []
    assert RESOURCE.preview({"name": NAME}) == {"name": NAME}


def test_a_certificate_can_not_be_imported() -> None:
    with pytest.raises(PlatformError, match="make a new one"):
        RESOURCE.read(at(NOW), NAME, None, None)
