"""A thread that goes on beside a test, for as long as its `with` block lasts."""

from __future__ import annotations

import threading
from typing import Self


class Background:
    """Runs `_run`, which ends when `_done` is set."""

    def __enter__(self) -> Self:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        raise NotImplementedError
