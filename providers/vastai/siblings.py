"""Servers of one deployment are on machines of their own: one that fails takes only one of them along."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from providers.vastai.instances import VastInstance

_LABEL_PARTS = 4


def are_siblings(label: str, other: str) -> bool:
    """Whether two labels (project/stack/resource/generation-owner) are of different servers of the same stack."""
    mine, its = label.split("/"), other.split("/")
    return len(mine) == len(its) == _LABEL_PARTS and mine[:2] == its[:2] and mine[2] != its[2]


def machines_of_siblings(label: str, instances: Iterable[VastInstance]) -> frozenset[int]:
    """The machines that other servers of the same stack are on."""
    return frozenset(
        one.machine_id for one in instances if one.machine_id is not None and are_siblings(label, one.label)
    )


@dataclass
class Claims:
    """Who is about to rent which machine. Servers that are made at once search the same market at the same moment."""

    _held: dict[int, str] = field(default_factory=dict[int, str])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, machine: int, label: str) -> bool:
        """Whether the machine may be rented under that label: no sibling has claimed it."""
        with self._lock:
            holder = self._held.setdefault(machine, label)
            if are_siblings(label, holder):
                return False
            self._held[machine] = label
            return True

    def give_up(self, machine: int, label: str) -> None:
        """Somebody else has the machine: should it come free again, a sibling may have it."""
        with self._lock:
            if self._held.get(machine) == label:
                del self._held[machine]


CLAIMS = Claims()
"""The claims of this process, which makes all servers of a stack."""
