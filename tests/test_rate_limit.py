"""A limiter says how long to wait, so that streams together keep to a rate."""

from __future__ import annotations

import time

import pytest

from docket.rate_limit import RateLimiter


def test_no_rate_is_no_wait() -> None:
    """Without a limit nothing waits, and as much moves at a time as may."""
    assert RateLimiter().delay(1 << 40) == 0.0
    assert RateLimiter().share(1 << 20) == 1 << 20


def test_streams_share_a_rate() -> None:
    """Each wait counts what all have moved before."""
    limiter = RateLimiter(1000)
    assert limiter.delay(1000) == pytest.approx(1.0, abs=0.2)
    assert limiter.delay(500) == pytest.approx(1.5, abs=0.2)


def test_idle_time_is_no_licence_for_a_burst() -> None:
    """After a long pause as many bytes wait as ever, but for those of a moment."""
    limiter = RateLimiter(1_000_000)
    limiter.delay(1)
    before = time.monotonic()
    while time.monotonic() < before + 0.5:
        pass
    assert limiter.delay(1_000_000) > 0.8


def test_slow_streams_move_little_at_a_time() -> None:
    """A quarter of a second's bytes, but not less than a network packet is worth."""
    assert RateLimiter(400_000).share(1 << 20) == 100_000
    assert RateLimiter(10).share(1 << 20) == 16 * 1024
