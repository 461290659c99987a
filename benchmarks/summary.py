"""Several measurements of one thing, as their median and extremes."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """The median, lowest and highest of *runs* measurements, in whatever unit they have."""

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Summary:
        """The summary of *values*, of which there is at least one."""
        listed = list(values)
        return cls(statistics.median(listed), min(listed), max(listed), len(listed))

    def shown(self, unit: float = 1.0, digits: int = 0) -> str:
        """``median (low–high)`` in multiples of *unit*."""
        median, low, high = (f"{value / unit:.{digits}f}" for value in self._all)
        return median if low == high else f"{median} ({low}–{high})"

    @property
    def _all(self) -> tuple[float, float, float]:
        return self.median, self.low, self.high
