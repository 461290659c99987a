"""Hosts that are network namespaces on one bridge, for tests that have the parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.netns import Host, Shape, network
from tests.support.requirements import need, need_root

__all__ = ["Host", "namespaces"]


@contextmanager
def namespaces(n: int, *, mbit: float | None = None) -> Iterator[list[Host]]:
    """*n* hosts that reach each other and nothing else, at *mbit* Mb/s each way if given.

    Leaving kills what still runs on them and removes them.
    """
    need("ip", "nsenter", *(["tc"] if mbit else []))
    need_root()
    with network(n, shape=Shape(mbit) if mbit else None) as made:
        yield list(made.hosts)
