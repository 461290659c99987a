"""Rates with units and hours, and what applies them."""

from __future__ import annotations

import threading
from datetime import datetime

import pytest

from docket.agent.host.limits import LimitKeeper, RateSchedule


def at(clock: str) -> datetime:
    """That time of a day."""
    return datetime.fromisoformat(f"2026-11-27T{clock}")


@pytest.mark.parametrize(
    ("text", "clock", "rate"),
    [
        ("0", "12:00", 0),
        ("20M", "12:00", 20_000_000),
        ("1.5Mi", "12:00", 1_572_864),
        ("20m@08:00-18:00,0", "07:59:59", 0),
        ("20M@08:00-18:00,0", "08:00", 20_000_000),
        ("20M@08:00-18:00,0", "18:00", 0),
        ("5M@22:00-06:00, 1M", "23:30", 5_000_000),
        ("5M@22:00-06:00, 1M", "05:59", 5_000_000),
        ("5M@22:00-06:00, 1M", "06:00", 1_000_000),
        ("1K@00:00-24:00", "23:59", 1000),
        ("1K@08:00-09:00", "10:00", 0),
        ("1K@08:00-12:00,2K@10:00-14:00", "11:00", 1000),
    ],
)
def test_the_first_rule_that_fits_counts(text: str, clock: str, rate: int) -> None:
    """Hours are local time and may go past midnight; without a rule there is no limit."""
    assert RateSchedule.parse(text).rate(at(clock)) == rate


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "20M@", "20M@8-18", "1M@08:00-08:00", "1M@08:00-24:01", "1M,,2M", "1e9"]
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    """An option that is half understood would limit at the wrong hours."""
    with pytest.raises(ValueError, match=r"rate|hour"):
        RateSchedule.parse(text)


def test_a_schedule_says_when_it_may_change() -> None:
    """To the second; past midnight too."""
    schedule = RateSchedule.parse("20M@08:00-18:00,0")
    assert schedule.seconds_left(at("07:59:30")) == 30
    assert schedule.seconds_left(at("23:59:00")) == 60
    assert RateSchedule.parse("5M@22:00-06:00").seconds_left(at("21:00")) == 3600


def test_limits_change_with_the_hour_and_with_the_options() -> None:
    """They are applied at once, and again only when a rate is another."""
    applied: list[tuple[int, int]] = []
    changed = threading.Event()

    def apply(upload: int, download: int) -> None:
        applied.append((upload, download))
        changed.set()

    now = [at("07:59:59.99")]
    schedule = RateSchedule.parse("20M@08:00-18:00,0")
    keeper = LimitKeeper(schedule, RateSchedule(), apply, clock=lambda: now[0])
    try:
        assert applied == [(0, 0)]
        changed.clear()
        now[0] = at("08:00:00")
        assert changed.wait(10)
        assert applied[-1] == (20_000_000, 0)
        keeper.set(RateSchedule.parse("1K"), RateSchedule.parse("2K"))
        assert applied[-1] == (1000, 2000)
        keeper.set(RateSchedule.parse("1K"), RateSchedule.parse("2K"))
        assert len(applied) == 3
    finally:
        keeper.close()
