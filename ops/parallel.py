"""Many questions at the same time, with one deadline for all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from providers.base import PlatformError
from serving.spec import SpecError

K = TypeVar("K")
T = TypeVar("T")


def ask_all(questions: Mapping[K, Callable[[], T]], timeout_s: float) -> dict[K, T | PlatformError]:
    """The answer to each question, or why there is none; what isn't answered in time is a `PlatformError` too."""
    answers: dict[K, T | PlatformError | Exception] = {}

    def ask(key: K, question: Callable[[], T]) -> None:
        try:
            answers[key] = question()
        except SpecError as error:
            answers[key] = PlatformError(str(error))
        except Exception as error:
            answers[key] = error

    # Daemons, because a question that hangs must not keep the command from ending.
    threads = {key: threading.Thread(target=ask, args=(key, q), daemon=True) for key, q in questions.items()}
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + timeout_s
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    return {key: _settled(answers.get(key, PlatformError(f"no answer in {timeout_s:g} s"))) for key in questions}


def _settled(answer: T | PlatformError | Exception) -> T | PlatformError:
    if isinstance(answer, Exception) and not isinstance(answer, PlatformError):
        raise answer
    return answer
