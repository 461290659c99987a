"""What is true of every input: what is refused is refused by one short line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from docket.errors import DocketError, summary

_MOST_CHARACTERS = 1100


@contextmanager
def refused_or_fine(*kinds: type[DocketError]) -> Iterator[None]:
    """Errors of these kinds are fine, when people can read them; all others are findings."""
    try:
        yield
    except kinds as error:
        assert_readable(error)


def assert_readable(error: DocketError) -> None:
    """One line, no longer than a few of a terminal, without characters that drive one."""
    line = summary(error)
    assert line.isprintable(), line
    assert 0 < len(line) <= _MOST_CHARACTERS, len(line)
