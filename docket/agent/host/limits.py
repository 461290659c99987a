"""Rate limits that depend on the hour, applied while they change."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_RULE = re.compile(
    r"(?P<number>[0-9]{1,12}(?:\.[0-9]{1,3})?)(?P<unit>(?:[KMG]i?)?)"
    r"(?:@(?P<start>[0-2][0-9]:[0-5][0-9])-(?P<end>[0-2][0-9]:[0-5][0-9]))?\Z",
    re.IGNORECASE,
)
_DAY = 24 * 60
_LONGEST_WAIT = 3600.0
"""Seconds until the clock is read again: it may have been set."""

log = logging.getLogger("docket.agent")


@dataclass(frozen=True, slots=True)
class RateRule:
    """*rate* in bytes a second from minute *start* of a day to *end*; 0 is no limit."""

    rate: int
    start: int = 0
    end: int = _DAY

    def holds(self, minute: int) -> bool:
        """Whether it holds in that minute; hours may go past midnight."""
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end


@dataclass(frozen=True, slots=True)
class RateSchedule:
    """Which rate holds when: the first rule that fits; no limit where none does."""

    rules: tuple[RateRule, ...] = ()

    @classmethod
    def parse(cls, text: str) -> RateSchedule:
        """``20M@08:00-18:00,0``: rates with units, by the host's local time. Raises ValueError."""
        return cls(tuple(_rule(part.strip(), text) for part in text.split(",")))

    def rate(self, now: datetime) -> int:
        """The bytes a second at *now*."""
        minute = now.hour * 60 + now.minute
        return next((rule.rate for rule in self.rules if rule.holds(minute)), 0)

    def seconds_left(self, now: datetime) -> float:
        """Seconds until another rule may hold, an hour at most."""
        minutes = {edge % _DAY for rule in self.rules for edge in (rule.start, rule.end)}
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        waits = (
            (midnight + timedelta(minutes=minute + days * _DAY) - now).total_seconds()
            for minute in minutes
            for days in (0, 1)
        )
        return min((wait for wait in waits if wait > 0), default=_LONGEST_WAIT)


def _rule(part: str, text: str) -> RateRule:
    match = _RULE.match(part)
    if match is None:
        raise ValueError(f"{text!r} is not a rate such as 20M, or 20M@08:00-18:00,0")
    rate = int(float(match["number"]) * _UNITS[match["unit"].upper()])
    if match["start"] is None:
        return RateRule(rate)
    start, end = _minute(match["start"], text), _minute(match["end"], text)
    if start == end:
        raise ValueError(f"{text!r} has hours that end when they begin")
    return RateRule(rate, start, end)


def _minute(clock: str, text: str) -> int:
    hours, minutes = map(int, clock.split(":"))
    if hours * 60 + minutes > _DAY:
        raise ValueError(f"{text!r} has an hour after 24:00")
    return hours * 60 + minutes


class LimitKeeper:
    """Applies two schedules, upload and download, as the hours pass. Sleeps in between."""

    def __init__(
        self,
        upload: RateSchedule,
        download: RateSchedule,
        apply: Callable[[int, int], None],
        *,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        """*apply* gets both rates, at once and whenever one changes."""
        self._schedules = (upload, download)
        self._apply = apply
        self._clock = clock
        self._applied: tuple[int, int] | None = None
        self._changed = threading.Condition()
        self._is_closed = False
        self._apply_now()
        self._thread = threading.Thread(target=self._run, name="limits", daemon=True)
        self._thread.start()

    def set(self, upload: RateSchedule, download: RateSchedule) -> None:
        """Apply these from now on."""
        with self._changed:
            self._schedules = (upload, download)
            self._apply_now()
            self._changed.notify()

    def close(self) -> None:
        """Leave the limits as they are."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        with self._changed:
            while not self._is_closed:
                now = self._clock()
                waits = [schedule.seconds_left(now) for schedule in self._schedules]
                self._changed.wait(min(*waits, _LONGEST_WAIT))
                self._apply_now()

    def _apply_now(self) -> None:
        upload, download = (schedule.rate(self._clock()) for schedule in self._schedules)
        if (upload, download) != self._applied:
            self._applied = (upload, download)
            self._apply(upload, download)
            log.info("limits: upload %d, download %d bytes/s (0: none)", upload, download)
