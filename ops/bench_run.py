"""Drives a load against an endpoint and records what comes back, its own lateness included."""

from __future__ import annotations

import asyncio
import gc
import itertools
import select
import selectors
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from ops.bench_client import BenchClient
from serving.bench.load import Closed, Load, Open, Until, schedule
from serving.bench.metrics import Summary, summary
from serving.bench.prompts import PROBE_WORDS, Calibration, Prompt, PromptError, calibrated, synthetic_text
from serving.bench.record import Record

BEAT_S = 0.02
_SHOWN_EVERY = 25
_LEAD_S = 0.05
_PREPARED = 2000
_COLD_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Attributes:
        loop_lag: how late this process came to things, sampled every `BEAT_S`.
        opened: connections opened during the run.
        connect_ms: what opening one took on average, those before the run included.
        retried: requests sent again because their kept-alive connection had just been closed.
    """

    load: Load
    begun: datetime
    records: tuple[Record, ...]
    loop_lag: Summary
    opened: int
    connect_ms: float
    retried: int


COLD_S = 1.0
"""How much later than a warm one the first token of a cold start comes at least, in seconds."""


@dataclass(frozen=True, slots=True)
class ColdStart:
    """A start from nothing.

    Attributes:
        first_token_s: from the first attempt to the first token, in seconds.
        attempts: how often it was asked until it answered.
        refused: what the earlier attempts met, in order, without repetition.
        warm_ttft_s: the same request again, right after.
    """

    first_token_s: float
    attempts: int
    refused: tuple[str, ...]
    warm_ttft_s: float

    @property
    def was_cold(self) -> bool:
        """Whether it looks as if something had to be started."""
        return self.first_token_s > self.warm_ttft_s + COLD_S


Watch = Callable[[Sequence[Record], int], None]
"""Called twice a second with the records so far and the number of requests in flight."""


class _PreciseSelector(selectors.DefaultSelector):
    """epoll waits whole milliseconds, rounded up; select on its descriptor waits as long as it is told."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            select.select((self.fileno(),), (), (), timeout)
            ready = super().select(0)
        return ready


def precise_loop() -> asyncio.AbstractEventLoop:
    """An event loop whose timers are not up to 1 ms late, without spinning."""
    return asyncio.SelectorEventLoop(_PreciseSelector())


async def drive(
    client: BenchClient, load: Load, until: Until, prompts: Iterator[Prompt], random: Random, watch: Watch
) -> Run:
    """Send requests as the load says and wait for all answers. `prompts` must not run out.

    Raises:
        OSError: when the endpoint can't be reached at all.
    """
    requests = _prepared(client, prompts, until)
    if isinstance(load, Closed):
        await client.warm(load.concurrency)
    traffic = client.traffic
    opened, retried = traffic.opened, traffic.retried
    records: list[Record] = []
    in_flight = [0]
    late: list[float] = []
    begun = datetime.now(UTC)
    with _undisturbed():
        beat = asyncio.create_task(_heart(late, lambda: watch(records, in_flight[0])))
        try:
            if isinstance(load, Closed):
                await _closed(client, load, until, requests, records, in_flight)
            else:
                await _open(client, load, until, requests, records, in_flight, random)
        finally:
            beat.cancel()
    watch(records, 0)
    return Run(
        load,
        begun,
        tuple(sorted(records, key=lambda record: record.intended)),
        summary(late),
        traffic.opened - opened,
        traffic.connect_s / traffic.opened * 1000 if traffic.opened else 0.0,
        traffic.retried - retried,
    )


async def calibrate(client: BenchClient, random: Random) -> Calibration:
    """Ask the server how it counts tokens, with two short requests.

    Raises:
        PromptError: when it does not answer, or does not count.
    """
    counts: list[tuple[int, int]] = []
    for words in PROBE_WORDS:
        record = await client.ask(client.prepared(Prompt(synthetic_text(words, random), 1)))
        if not record.ok:
            raise PromptError(f"the server's way of counting tokens can't be asked for: {record.error}")
        if record.prompt_tokens is None:
            raise PromptError(
                "the server sends no `usage`, so prompts of an exact length can't be made; leave --input-tokens out"
            )
        counts.append((words, record.prompt_tokens))
    return calibrated(counts)


async def cold_start(
    client: BenchClient,
    prompt: Prompt,
    timeout_s: float,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> ColdStart | str:
    """Ask until the endpoint answers, then once more. What it last said, when it didn't within `timeout_s`."""
    begun = clock()
    refused: list[str] = []
    request = client.prepared(prompt)
    for attempt in itertools.count(1):
        record = await client.ask(request)
        if record.ok:
            warm = await client.ask(request)
            again = warm.ttft if warm.ok else 0.0
            return ColdStart(record.pieces[0] - begun, attempt, tuple(dict.fromkeys(refused)), again)
        refused.append(record.error)
        if clock() - begun > timeout_s:
            return record.error
        await sleep(_COLD_PAUSE_S)
    raise AssertionError


async def _closed(
    client: BenchClient,
    load: Closed,
    until: Until,
    requests: Iterator[bytes],
    records: list[Record],
    in_flight: list[int],
) -> None:
    numbers = itertools.count() if until.requests is None else iter(range(until.requests))
    end = None if until.seconds is None else time.perf_counter() + until.seconds

    async def one_after_another() -> None:
        in_flight[0] += 1
        for _ in numbers:
            if end is not None and time.perf_counter() >= end:
                break
            records.append(await client.ask(next(requests)))
        in_flight[0] -= 1

    await asyncio.gather(*(one_after_another() for _ in range(load.concurrency)))


async def _open(
    client: BenchClient,
    load: Open,
    until: Until,
    requests: Iterator[bytes],
    records: list[Record],
    in_flight: list[int],
    random: Random,
) -> None:
    async def one(request: bytes, due: float) -> None:
        in_flight[0] += 1
        records.append(await client.ask(request, due))
        in_flight[0] -= 1

    begun = time.perf_counter() + _LEAD_S
    async with asyncio.TaskGroup() as group:
        for at in schedule(load, until, random):
            request = next(requests)
            await _wait_until(begun + at)
            group.create_task(one(request, begun + at))


async def _wait_until(due: float) -> None:
    """Also when it is past: what has come in meanwhile is seen to."""
    await asyncio.sleep(max(0.0, due - time.perf_counter()))


async def _heart(late: list[float], show: Callable[[], None]) -> None:
    for beat in itertools.count(1):
        due = time.perf_counter() + BEAT_S
        await asyncio.sleep(BEAT_S)
        late.append(max(0.0, time.perf_counter() - due))
        if beat % _SHOWN_EVERY == 0:
            show()


def _prepared(client: BenchClient, prompts: Iterable[Prompt], until: Until) -> Iterator[bytes]:
    """Requests as bytes; those that will surely be sent are made before the clock runs."""
    source = map(client.prepared, prompts)
    ready = list(itertools.islice(source, min(_PREPARED, until.requests or _PREPARED)))
    return itertools.chain(ready, source)


@contextmanager
def _undisturbed() -> Generator[None]:
    """No pauses by the garbage collector while the clock runs."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
