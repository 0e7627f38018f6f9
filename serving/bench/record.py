"""What one streamed request left behind, and the field's latencies of it.

Definitions (those of `vllm bench serve`, except for where a request begins):

- A request begins when it was *meant* to be sent. Under an open loop a client that falls behind would otherwise hide
  the very delays that it is there to measure (coordinated omission).
- TTFT: from there to the first piece of the answer, reasoning and tool calls included.
- E2E: from there to the last piece.
- ITL: the gaps between pieces. A piece may hold several tokens, so gaps say what a reader sees, not a token's cost.
- TPOT: (E2E - TTFT) / (tokens - 1), with the tokens that the server counted in `usage`; none for a one-token answer.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """One request. Times are seconds on the client's monotonic clock.

    Attributes:
        intended: when the schedule had it sent; under a closed loop, when its turn came.
        sent: when its bytes were handed to the socket.
        pieces: when each piece of the answer with tokens arrived, in order.
        prompt_tokens, output_tokens: as the server counted them; None when it did not say.
        error: why it failed; empty for a complete answer. A failed request has no latencies.
        retried: whether it was sent again, because the kept-alive connection had just been closed.
        ended: when the answer was over, for a failed request when it failed.
    """

    intended: float
    sent: float
    pieces: tuple[float, ...]
    ended: float
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    error: str = ""
    retried: bool = False

    @property
    def ok(self) -> bool:
        """Whether the answer is complete."""
        return not self.error

    @property
    def ttft(self) -> float:
        """Time to first token, in seconds; of a complete answer only."""
        return self.pieces[0] - self.intended

    @property
    def e2e(self) -> float:
        """End-to-end latency, in seconds; of a complete answer only."""
        return self.pieces[-1] - self.intended

    @property
    def gaps(self) -> tuple[float, ...]:
        """Inter-token latencies, in seconds."""
        return tuple(after - before for before, after in itertools.pairwise(self.pieces))

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first, in seconds."""
        if not self.output_tokens or self.output_tokens < 2:
            return None
        return (self.pieces[-1] - self.pieces[0]) / (self.output_tokens - 1)

    @property
    def lag(self) -> float:
        """How late the client itself sent it, in seconds."""
        return max(0.0, self.sent - self.intended)


@dataclass(frozen=True, slots=True)
class Goodput:
    """What a request must keep to count as good, in seconds; None asks nothing."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None

    def asks(self) -> bool:
        """Whether any bound is set."""
        return (self.ttft, self.tpot, self.e2e) != (None, None, None)

    def kept(self, record: Record) -> bool:
        """Whether a request was good. A one-token answer has a TPOT of 0; a failed request is never good."""
        if not record.ok:
            return False
        found = ((self.ttft, record.ttft), (self.tpot, record.tpot or 0.0), (self.e2e, record.e2e))
        return all(bound is None or value <= bound for bound, value in found)
