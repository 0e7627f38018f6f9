"""Addresses that users get are TLS unless they asked for something else, and say so; what one page claims is so."""

from __future__ import annotations

import hmac
import re
from pathlib import Path
from types import ModuleType

import pytest

from providers.base import platform_names
from providers.gcp.options import GcpOptions
from providers.gcp.stack import endpoint
from providers.runpod.client import Urls
from providers.vastai.options import VastaiOptions
from serving.advisories import known
from serving.guard import guard_source
from serving.spec import DEFAULT_VLLM_VERSION

PAGE = (Path(__file__).parents[1] / "docs/security.md").read_text()


def test_no_public_address_is_plain_unless_it_is_asked_for() -> None:
    urls = Urls()
    assert {url.partition("://")[0] for url in (urls.api, urls.jobs, urls.proxy, urls.balancer)} == {"https"}
    assert endpoint(GcpOptions()).template.startswith("https://")
    assert endpoint(GcpOptions(hostname="llm.example.org")).template == "https://llm.example.org/v1"
    assert endpoint(GcpOptions(plain_http=True)).template.startswith("http://")
    assert not VastaiOptions().plain_http


def test_keys_are_compared_in_constant_time_and_each_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "sk-2")
    monkeypatch.setenv("ANYWHERE_PREVIOUS_KEY", "sk-1")
    module = ModuleType("guard")
    exec(guard_source(), module.__dict__)
    compared: list[tuple[int, int]] = []

    def compare(offered: bytes, key: bytes) -> bool:
        compared.append((len(offered), len(key)))
        return offered == key

    monkeypatch.setattr(hmac, "compare_digest", compare)
    guard = module.Guard(None)
    for token in (b"", b"sk-2", b"sk-1", b"sk-", b"x" * 10_000):
        guard.knows([(b"authorization", b"Bearer " + token)])
    # Digests of one length, so that neither how much of a key fits nor how long it is shows in the time.
    assert compared == [(32, 32)] * 10


def test_the_page_has_every_platform_and_every_weakness_of_the_default_release() -> None:
    for name in ("gcp", "lambda", "local", "modal", "runpod", "vastai"):
        assert name in platform_names()
    for title in ("`local`", "RunPod, pod", "Vast.ai, instance", "Google Cloud", "Lambda Cloud", "Modal"):
        assert f"| {title} |" in PAGE, title
    told = set(re.findall(r"(?:CVE|PYSEC)-\d{4}-\d+", PAGE))
    assert told == {one.id for one in known("vllm", DEFAULT_VLLM_VERSION) if one.reach != "closed"}
    assert DEFAULT_VLLM_VERSION in PAGE
