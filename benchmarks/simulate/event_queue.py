"""Simulated time: what happens when, in order."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class EventQueue:
    """Events to come; those of the same moment come in the order in which they were set."""

    def __init__(self) -> None:
        self.now = 0.0
        self._count = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, when: float, call: Callable[..., None], *values: Any) -> None:
        """Have *call* called with *values* at *when*, in seconds."""
        self._count += 1
        heapq.heappush(self._events, (when, self._count, call, values))

    def run(self, until: Callable[[], bool], limit: float) -> None:
        """Go on until *until* says so, nothing is to come any more, or the *limit* is reached."""
        events = self._events
        pop = heapq.heappop
        while events and not until():
            when, _, call, values = pop(events)
            if when > limit:
                return
            self.now = when
            call(*values)
