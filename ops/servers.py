"""The servers of a stack that has several: all are asked, and what holds for the stack follows from each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ops.client import Health
from ops.stack import Stack
from serving.watching import Probe

T = TypeVar("T")


def of_each(stack: Stack, ask: Callable[[Stack], T]) -> dict[str, T]:
    """The answer of each server, by its name. All are asked at the same time."""
    servers = stack.servers()
    with ThreadPoolExecutor(len(servers)) as pool:
        return dict(zip(servers, pool.map(ask, servers.values()), strict=True))


def health_of(found: Mapping[str, Health]) -> Health:
    """The stack is well if each of its servers is, and as slow as the slowest of them."""
    first, *others = found.values()
    if not others:
        return first
    problem = _told({name: one.problem for name, one in found.items() if not one.ok}, len(found))
    return Health(not problem, first.models, max(one.latency_ms for one in found.values()), problem)


def probe_of(found: Mapping[str, Probe]) -> Probe:
    """The same of requests."""
    first, *others = found.values()
    if not others:
        return first
    problem = _told({name: one.problem for name, one in found.items() if not one.ok}, len(found))
    return Probe(not problem, max(one.latency_ms for one in found.values()), problem)


def _told(problems: Mapping[str, str], count: int) -> str:
    if not problems:
        return ""
    each = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    return f"{len(problems)} of {count} servers ({each})"
