"""Times of a clock that was ahead: rows from the future count as written when that is noticed.

The table ``clock`` holds a time that no row is later than. If it lies ahead, the clock was wrong,
and every row of the future gets the present time: it ages from then on, and what comes next is
newer.
"""

from __future__ import annotations

import time
from typing import Any

from msgspec.structs import replace

from docket.errors import IndexDamaged
from docket.store.index.environment import CLOCK_STEP, Index
from docket.store.index.tables import Table, Transaction

_TIMES = {
    "blobs": ("stored", "verified"),
    "manifests": ("pushed",),
    "tags": ("moved",),
}


def correct_future_times(index: Index) -> None:
    """Set the times of all rows that lie ahead to the present; looks at no row if none can."""
    now = time.time()
    if (latest := index.latest_time()) is not None and latest <= now + CLOCK_STEP:
        return
    tables: list[Table[Any]] = [index.blobs, index.links, index.manifests, index.tags]
    for table in tables:
        for batch in index.batches(table):
            index.update(
                lambda txn, table=table, batch=batch: _correct(txn, table, batch, now)  # type: ignore[misc]
            )
    index.set_latest_time(now)


def _correct(txn: Transaction, table: Table[Any], batch: list[bytes], now: float) -> None:
    for key in batch:
        try:
            row = table.get(txn, key)
        except IndexDamaged:
            continue  # fsck repairs it
        if row is not None and (corrected := _corrected(table.name, row, now)) != row:
            table.put(txn, key, corrected)


def _corrected(table: str, row: Any, now: float) -> Any:
    if table == "links":
        return min(row, now)
    return replace(row, **{name: min(getattr(row, name), now) for name in _TIMES[table]})
