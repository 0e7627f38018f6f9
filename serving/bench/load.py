"""When requests are sent: a closed loop keeps so many in flight, an open loop keeps to a schedule come what may."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal


@dataclass(frozen=True, slots=True)
class Closed:
    """`concurrency` requests in flight at any time: the next one goes out when one is answered."""

    concurrency: int

    def __str__(self) -> str:
        return f"{self.concurrency} at a time"


@dataclass(frozen=True, slots=True)
class Open:
    """`rate` requests a second, whether or not earlier ones are answered."""

    rate: float
    arrivals: Literal["poisson", "constant"] = "poisson"

    def __str__(self) -> str:
        return f"{self.rate:g} a second, {self.arrivals}"


Load = Closed | Open


@dataclass(frozen=True, slots=True)
class Until:
    """When a run stops sending: after so many requests, or so many seconds, whichever comes first; None is no bound.

    What is in flight then is waited for and counts.
    """

    requests: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.requests is None and self.seconds is None:
            raise ValueError("a run without an end")


def schedule(load: Open, until: Until, random: Random) -> Iterator[float]:
    """Seconds after the start at which requests are to be sent, in rising order; the first is at once."""
    at = 0.0
    for index in itertools.count():
        if until.requests is not None and index >= until.requests:
            return
        if until.seconds is not None and at >= until.seconds:
            return
        yield at
        # A running sum would drift away from a constant rate.
        at = (index + 1) / load.rate if load.arrivals == "constant" else at + random.expovariate(load.rate)
