"""Commands on an endpoint that is nobody's stack: `--url`, its key, and a certificate authority of its own."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from stub_openai import Script, Stub, serving

from ops.cli import main
from serving import tls

KEY = "sk-very-secret-indeed"
Told = Callable[..., tuple[int, Any]]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Stub, Path]]:
    """A server whose certificate an authority of its own vouches for, and that authority's file."""
    made = datetime.now(UTC) - timedelta(hours=1)
    authority = tls.new_authority("test", now=made)
    leaf = tls.issue(authority, "x.vllm-anywhere.internal", ["127.0.0.1"], now=made)
    both, ca = tmp_path / "both.pem", tmp_path / "ca.pem"
    both.write_text(leaf.key_pem + leaf.cert_pem)
    ca.write_text(authority.cert_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    with serving(lambda number, body: Script(gaps_s=(0.001,)), context) as stub:
        yield stub, ca


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Told:
    """Exit code and JSON of a command line; the key comes from the environment."""
    monkeypatch.setenv("VLLM_ANYWHERE_KEY", KEY)
    monkeypatch.setenv("VLLM_ANYWHERE_STATE", str(tmp_path))

    def run(*words: str) -> tuple[int, Any]:
        with pytest.raises(SystemExit) as ended:
            main([*words, "--json"])
        out = capsys.readouterr().out
        assert KEY not in out
        return int(str(ended.value.code)), json.loads(out) if out else None

    return run


def test_every_command_about_an_endpoint_trusts_the_authority_it_is_given(own: tuple[Stub, Path], told: Told) -> None:
    stub, ca = own
    where = ("--url", stub.url, "--ca", str(ca))
    code, found = told("status", *where)
    assert (code, found["healthy"], found["models"]) == (0, True, ["stub"])
    code, found = told("chat", *where, "Hello?")
    assert (code, found["model"], bool(found["answer"])) == (0, "stub", True)
    code, found = told("watch", "--once", *where)
    assert (code, found["healthy"], found["findings"]) == (0, True, [])
    code, found = told("bench", *where, "--requests", "4", "--concurrency", "2")
    assert (code, found["completed"]) == (0, 4)
    assert {one.authorization for one in stub.served} == {f"Bearer {KEY}"}


def test_without_that_authority_none_of_them_believes_the_server(own: tuple[Stub, Path], told: Told) -> None:
    stub, _ = own
    code, found = told("status", "--url", stub.url)
    assert (code, "CERTIFICATE_VERIFY_FAILED" in found["problem"]) == (1, True)
    code, found = told("watch", "--once", "--url", stub.url)
    assert (code, found["healthy"], found["findings"][0]["kind"]) == (1, False, "down")
    assert (told("chat", "--url", stub.url, "Hello?")[0], told("bench", "--url", stub.url)[0]) == (1, 1)
    assert stub.served == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("status", "--url", "host/v1"), "an OpenAI base URL, such as https://host/v1"),
        (("status", "--url", "https://h/v1", "-s", "prod"), "leave out -s"),
        (("watch", "--url", "https://h/v1", "--heal"), "leave out -s and --heal"),
        (("chat", "--url", "https://h/v1", "--ca", "/no/such.pem", "Hello?"), "--ca /no/such.pem can't be read"),
    ],
)
def test_what_makes_no_sense_is_said(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 1
    assert said in capsys.readouterr().err
