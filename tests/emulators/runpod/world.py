"""The account in time: a clock that can be put forward, the containers that run by then, what has been spent."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from decimal import Decimal

from . import scaling
from .command import Crash, Serving, Task, command_of
from .engines import Engine, Engines
from .state import Account, Boot, Container, Worker

_ENGINE_LIMIT_S = 60.0
_POLL_S = 0.02


class World:
    """Everything that the routes share. Take it with `settled()`: the lock is held, and all is as of now."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.engines = Engines()
        self.closed = threading.Event()
        self._lock = threading.RLock()

    def now(self) -> float:
        return time.time() + self.account.ahead_s

    def advance(self, seconds: float) -> None:
        """Put the clock forward: what takes that long has happened."""
        with self.settled():
            self.account.ahead_s += seconds
            self._settle()

    @contextmanager
    def settled(self) -> Generator[Account]:
        with self._lock:
            self._settle()
            yield self.account
            self._settle()

    def close(self) -> None:
        self.closed.set()
        with self._lock:
            self.engines.close()

    def ready(self, name: str) -> bool:
        return self.engines.ready(name) is not None

    def _settle(self) -> None:
        if self.closed.is_set():
            return
        account, now = self.account, self.now()
        account.accrue(now)
        wanted: dict[str, tuple[Serving | Crash | Task, Boot]] = {}
        for pod in account.pods.values():
            if pod.status(now) == "RUNNING":
                wanted[pod.run] = (self._command(pod.run, pod.container), pod.boot)
        for endpoint in account.endpoints.values():
            if endpoint.lingers is not None:
                endpoint.workers = []
                continue
            scaling.settle(account, endpoint, now, self.ready)
            for worker in endpoint.workers:
                if scaling.started(worker, now):
                    wanted[worker.id] = (self._command(worker.id, worker.container), worker.boot)
        self.engines.keep(wanted, now)

    def _command(self, name: str, container: Container) -> Serving | Crash | Task:
        if (engine := self.engines.get(name)) is not None:
            return engine.command
        return command_of(container.image, container.args, self.account.env_of(container))

    @contextmanager
    def worker(self, endpoint_id: str, limit_s: float) -> Generator[tuple[Worker, Engine] | None]:
        """A worker that serves, woken if need be, and busy until the end of the block.

        None when there is none within `limit_s`; the wait is put on the clock, as the caller would have waited it.
        """
        with self.settled() as account:
            worker = scaling.wake(account, account.endpoints[endpoint_id], self.now())
            wait_s = limit_s if worker is None else max(scaling.starts_at(worker) - self.now(), 0)
            self.advance(min(wait_s, limit_s))
            if worker is not None and wait_s < limit_s:
                worker.busy += 1
            else:
                worker = None
        with self._busy(worker):
            engine = self._engine(worker) if worker else None
            if worker and not engine:
                self.advance(limit_s)
            yield (worker, engine) if worker and engine else None

    @contextmanager
    def free_worker(self, endpoint_id: str) -> Generator[tuple[Worker, Engine] | None]:
        """Same, without waiting: one is woken, and None until it serves."""
        with self.settled() as account:
            endpoint = account.endpoints[endpoint_id]
            worker = scaling.wake(account, endpoint, self.now()) if endpoint.lingers is None else None
            engine = self.engines.ready(worker.id) if worker else None
            if worker and engine:
                worker.busy += 1
        with self._busy(worker if engine else None):
            yield (worker, engine) if worker and engine else None

    @contextmanager
    def _busy(self, worker: Worker | None) -> Generator[None]:
        try:
            yield
        finally:
            if worker is not None:
                with self.settled():
                    worker.busy -= 1
                    worker.used_at = self.now()

    def _engine(self, worker: Worker) -> Engine | None:
        """The worker's server once it answers: a real one, so this takes real time, about half a second."""
        begun = time.monotonic()
        while time.monotonic() - begun < _ENGINE_LIMIT_S:
            engine = self.engines.get(worker.id)
            if engine is None or engine.process is None:
                return None
            if (found := self.engines.ready(worker.id)) is not None:
                return found
            time.sleep(_POLL_S)
        return None

    def spending(self) -> dict[str, str]:
        """USD an hour of each thing that bills now."""
        with self.settled() as account:
            return {id: f"{rate:f}" for id, rate in account.hourly(self.now()).items()}

    def total(self) -> Decimal:
        """USD an hour now."""
        with self.settled() as account:
            return sum(account.hourly(self.now()).values(), Decimal(0))
