"""A surface to fuzz: how its property is checked, and inputs to begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

Check = Callable[[bytes], None]
"""Raises when the property doesn't hold for an input."""


@dataclass(frozen=True, slots=True)
class Target:
    """*open* gives the check, which may write below the folder that it gets, and nowhere else."""

    open: Callable[[Path], AbstractContextManager[Check]]
    seeds: Callable[[], list[bytes]]
    words: tuple[bytes, ...] = ()


def always(check: Check) -> Callable[[Path], AbstractContextManager[Check]]:
    """For a check that needs no folder."""

    @contextmanager
    def opened(_folder: Path) -> Iterator[Check]:
        yield check

    return opened
