"""The load generator against a server with scripted latencies, which keeps its own record of what it did when."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from ops.bench_client import BenchClient, Endpoint
from ops.bench_run import ColdStart, Run, calibrate, cold_start, drive, precise_loop
from ops.stack import OpsError
from serving.bench.load import Closed, Load, Open, Until
from serving.bench.metrics import PERCENTILES, figures, summary
from serving.bench.prompts import Prompt, PromptError, everyday, synthetic
from serving.bench.record import Record
from tests.stub_openai import TEMPLATE_TOKENS, Script, Stub

KEY = "sk-never-to-be-seen"


def numbered() -> Iterator[Prompt]:
    """Prompts that say which request they are."""
    return (Prompt(f"question {index}", 64) for index in itertools.count())


def asking(stub: Stub, timeout_s: float = 30.0, key: str = KEY, **options: Any) -> BenchClient:
    return BenchClient(Endpoint.parse(stub.url), key, "stub", options, timeout_s)


def driven(stub: Stub, load: Load, until: Until, prompts: Iterator[Prompt] | None = None) -> Run:
    async def main() -> Run:
        server = await stub.start()
        client = asking(stub)
        try:
            return await drive(client, load, until, prompts or numbered(), Random(1), lambda records, in_flight: None)
        finally:
            client.close()
            server.close()

    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(main())


def asked(stub: Stub, times: int = 1, timeout_s: float = 30.0) -> tuple[list[Record], BenchClient]:
    """One request after another on one client."""

    async def main() -> tuple[list[Record], BenchClient]:
        server = await stub.start()
        client = asking(stub, timeout_s)
        records = [await client.ask(client.prepared(Prompt("hello", 8))) for _ in range(times)]
        client.close()
        server.close()
        return records, client

    return asyncio.run(main())


def uneven(index: int, _: dict[str, Any]) -> Script:
    """Latencies that differ from request to request, and pauses that differ within one."""
    draw = Random(index)
    gaps = tuple(0.004 + 0.02 * draw.random() for _ in range(9))
    return Script(first_s=0.05 + 0.2 * draw.random(), gaps_s=gaps, tokens_each=1 + index % 3)


@pytest.mark.parametrize("load", [Closed(12), Open(60.0, "constant"), Open(60.0)], ids=str)
def test_reported_latencies_are_those_that_the_server_recorded_within_1_ms_or_2_per_cent(load: Load) -> None:
    stub = Stub(uneven)
    run = driven(stub, load, Until(requests=120))
    found = figures(run.records)
    assert found.completed == 120, found.errors
    # Matched by arrival: the k-th request that the client sent is not always the k-th that arrived.
    sent = {record.sent: record for record in run.records}
    served = sorted(stub.served, key=lambda one: one.arrived)
    true_ttft = summary(
        one.written[0] - r.intended for one, r in zip(served, (sent[at] for at in sorted(sent)), strict=True)
    )
    true_e2e = summary(
        one.written[-1] - r.intended for one, r in zip(served, (sent[at] for at in sorted(sent)), strict=True)
    )
    true_itl = summary(after - before for one in served for before, after in itertools.pairwise(one.written))
    for name, true, reported in (
        ("TTFT", true_ttft, found.ttft),
        ("ITL", true_itl, found.itl),
        ("E2E", true_e2e, found.e2e),
    ):
        for percent in PERCENTILES:
            expected, got = true.at(f"p{percent}"), reported.at(f"p{percent}")
            # What this machine did to the process meanwhile is no fault of the arithmetic; the run itself reports it.
            allowed = max(1.0, 0.02 * expected) + (run.loop_lag.most if percent > 50 else 0.0)
            assert abs(got - expected) <= allowed, (name, percent, got, expected, run.loop_lag)


def test_tokens_are_the_servers_count_whatever_the_number_of_pieces() -> None:
    run = driven(Stub(lambda *_: Script(gaps_s=(0.0,) * 4, tokens_each=8)), Closed(2), Until(requests=10))
    found = figures(run.records)
    assert (found.output_tokens, found.pieces) == (10 * 40, 10 * 5)
    assert found.input_tokens == 10 * (2 + TEMPLATE_TOKENS)


def test_a_closed_loop_never_has_more_in_flight_than_asked() -> None:
    stub = Stub(lambda *_: Script(first_s=0.01))
    run = driven(stub, Closed(3), Until(requests=30))
    edges = sorted([(record.sent, 1) for record in run.records] + [(record.ended, -1) for record in run.records])
    assert max(itertools.accumulate(step for _, step in edges)) == 3
    assert stub.connections == 3
    assert run.opened == 0


def test_an_open_loop_sends_on_time_even_when_nothing_comes_back() -> None:
    stub = Stub(lambda *_: Script(first_s=0.5))
    run = driven(stub, Open(100.0, "constant"), Until(requests=40))
    intended = [record.intended for record in run.records]
    gaps = [after - before for before, after in itertools.pairwise(intended)]
    assert gaps == pytest.approx([0.01] * 39)
    # All 40 were sent before the first answer could come.
    assert max(record.sent for record in run.records) < min(record.pieces[0] for record in run.records)


def test_a_server_that_stalls_shows_in_every_request_that_was_meant_to_be_sent_meanwhile() -> None:
    """No coordinated omission: the client is held up too, and its lateness counts as latency, not as silence."""

    def stall(index: int, _: dict[str, Any]) -> Script:
        return Script(first_s=0.3 if 10 <= index < 20 else 0.0)

    run = driven(Stub(stall), Open(100.0, "constant"), Until(requests=40))
    assert sum(record.ttft > 0.25 for record in run.records) >= 10
    assert all(record.ttft >= record.pieces[0] - record.sent for record in run.records)


def test_a_run_bounded_by_time_stops_sending_and_waits_for_what_is_in_flight() -> None:
    run = driven(Stub(lambda *_: Script(first_s=0.05)), Closed(2), Until(seconds=0.2))
    assert all(record.ok for record in run.records)
    first = min(record.intended for record in run.records)
    assert all(record.intended - first < 0.2 for record in run.records)


def test_refusals_broken_answers_and_silence_are_errors_in_words() -> None:
    refused, _ = asked(Stub(lambda *_: Script(status=429)))
    cut, _ = asked(Stub(lambda *_: Script(gaps_s=(0.0, 0.0), cut_after=2)))
    silent, _ = asked(Stub(lambda *_: Script(first_s=5.0)), timeout_s=0.05)
    assert refused[0].error == "HTTP 429 scripted refusal"
    assert "closed" in cut[0].error
    assert silent[0].error == "no complete answer in 0.05 s"
    assert not any(record.pieces for record in (*refused, *cut, *silent))


def test_nobody_listening_is_an_error_not_an_exception() -> None:
    async def main() -> Record:
        client = BenchClient(Endpoint.parse("http://127.0.0.1:9/v1"), KEY, "stub", {}, 5.0)
        return await client.ask(client.prepared(Prompt("hello", 8)))

    assert asyncio.run(main()).error.startswith("can't connect")


def test_a_kept_connection_that_the_server_just_closed_costs_no_request() -> None:
    stub = Stub(lambda *_: Script())

    async def main() -> list[Record]:
        server = await stub.start()
        client = asking(stub)
        first = await client.ask(client.prepared(Prompt("hello", 8)))
        # The request goes out in the moment in which the other side closes: what it sees is a reset.
        stub.drop_next = True
        second = await client.ask(client.prepared(Prompt("hello", 8)))
        client.close()
        server.close()
        return [first, second]

    first, second = asyncio.run(main())
    assert first.ok and second.ok
    assert (first.retried, second.retried) == (False, True)


def test_connections_are_kept_and_one_that_the_server_closes_is_replaced() -> None:
    kept, closed = Stub(lambda *_: Script()), Stub(lambda *_: Script(close=True))
    assert all(record.ok for record in asked(kept, 5)[0])
    assert all(record.ok for record in asked(closed, 5)[0])
    assert (kept.connections, closed.connections) == (1, 5)


def test_the_key_goes_out_in_the_header_alone_and_errors_never_repeat_it() -> None:
    stub = Stub(lambda *_: Script(status=401))
    records, _ = asked(stub)
    assert stub.served[0].authorization == f"Bearer {KEY}"
    assert KEY not in json.dumps(stub.served[0].body) + records[0].error


def test_an_error_text_that_repeats_the_key_is_cleaned() -> None:
    stub = Stub(lambda *_: Script(status=401, says=f"wrong key {KEY}"))
    assert asked(stub)[0][0].error == "HTTP 401 wrong key <key>"


def test_requests_pin_the_temperature_and_ask_for_usage() -> None:
    stub = Stub(lambda *_: Script())
    asked(stub)
    body = stub.served[0].body
    assert body["stream_options"] == {"include_usage": True}
    assert (body["temperature"], body["stream"], body["max_tokens"], body["model"]) == (0, True, 8, "stub")


def test_an_answer_without_usage_has_latencies_but_no_token_counts() -> None:
    records, _ = asked(Stub(lambda *_: Script(gaps_s=(0.0,), usage=False)))
    assert (records[0].ok, records[0].output_tokens, len(records[0].pieces)) == (True, None, 2)


def test_synthetic_prompts_are_exactly_as_long_as_asked_for_by_the_servers_own_count() -> None:
    stub = Stub(lambda *_: Script())

    async def main() -> list[Record]:
        server = await stub.start()
        client = asking(stub)
        calibration = await calibrate(client, Random(1))
        assert (calibration.overhead, calibration.per_word) == (TEMPLATE_TOKENS, 1)
        prompts = synthetic(300, 8, calibration, Random(2))
        records = [await client.ask(client.prepared(prompt)) for prompt in itertools.islice(prompts, 5)]
        client.close()
        server.close()
        return records

    assert [record.prompt_tokens for record in asyncio.run(main())] == [300] * 5
    texts = [served.body["messages"][0]["content"] for served in stub.served[2:]]
    assert len({text[:40] for text in texts}) == 5, "prompts that share a beginning would be served from a cache"


def test_calibration_says_so_when_the_server_does_not_count() -> None:
    stub = Stub(lambda *_: Script(usage=False))

    async def main() -> None:
        server = await stub.start()
        client = asking(stub)
        try:
            await calibrate(client, Random(1))
        finally:
            client.close()
            server.close()

    with pytest.raises(PromptError, match="no `usage`"):
        asyncio.run(main())


def cold(stub: Stub, timeout_s: float) -> ColdStart | str:
    async def no_pause(_: float) -> None:
        await asyncio.sleep(0)

    async def main() -> ColdStart | str:
        server = await stub.start()
        client = asking(stub)
        ticks = itertools.count()
        found = await cold_start(client, next(everyday(8)), timeout_s, lambda: float(next(ticks)), no_pause)
        client.close()
        server.close()
        return found

    return asyncio.run(main())


def test_a_cold_start_counts_from_the_first_attempt_and_says_what_was_met_on_the_way() -> None:
    found = cold(Stub(lambda index, _: Script(status=503 if index < 3 else 200)), timeout_s=100)
    assert isinstance(found, ColdStart)
    assert (found.attempts, found.refused) == (4, ("HTTP 503 scripted refusal",))


def test_a_cold_start_that_never_ends_returns_the_last_refusal() -> None:
    assert cold(Stub(lambda *_: Script(status=503)), timeout_s=3) == "HTTP 503 scripted refusal"


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("http://127.0.0.1:8000/v1", "127.0.0.1", 8000, "/v1", "127.0.0.1:8000"),
        ("https://abc-8000.proxy.example/v1/", "abc-8000.proxy.example", 443, "/v1", "abc-8000.proxy.example"),
        ("localhost:9/api/v1", "localhost", 9, "/api/v1", "localhost:9"),
        ("http://[::1]:7/v1", "::1", 7, "/v1", "[::1]:7"),
    ],
)
def test_base_urls_are_taken_apart(url: str, host: str, port: int, path: str, authority: str) -> None:
    found = Endpoint.parse(url)
    assert (found.host, found.port, found.target, found.authority) == (host, port, path, authority)


@pytest.mark.parametrize("url", ["ftp://x/v1", "http://", "http://x:port/v1"])
def test_what_is_no_url_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(OpsError, match=r"--url"):
        Endpoint.parse(url)
