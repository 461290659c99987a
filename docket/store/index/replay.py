"""The journal read back: an index with what it says, to compare with or to rebuild from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import msgspec

from docket.store.filesystem import Filesystem
from docket.store.index.environment import Index
from docket.store.index.journal import Entry, Journal, Position
from docket.store.index.tables import Transaction

_BATCH = 5000


@contextmanager
def replayed(
    folder: Path, filesystem: Filesystem, journal: Journal, position: Position | None
) -> Iterator[tuple[Index, int]]:
    """An index in *folder*, for as long as it is needed, with all rows of the journal.

    Up to *position*, or to the newest file's end; and how many lines were damaged.
    """
    filesystem.remove_folder(folder)
    index = Index(folder, filesystem=filesystem)
    try:
        yield index, replay(index, journal, position)
    finally:
        index.close()
        filesystem.remove_folder(folder)


def replay(index: Index, journal: Journal, position: Position | None) -> int:
    """Put what the journal says into *index*; the number of lines that were damaged."""
    entries = journal.entries(position)
    damaged = 0
    while batch := list(islice(entries, _BATCH)):
        good = [entry for entry in batch if entry]
        damaged += len(batch) - len(good)
        damaged += index.update(lambda txn, good=good: _put(index, txn, good))  # type: ignore[misc]
    return damaged


def _put(index: Index, txn: Transaction, entries: list[Entry]) -> int:
    tables = {table.name: table for table in index.tables if table.is_journaled}
    damaged = 0
    for entry in entries:
        table = tables.get(entry.table)
        if table is None:
            damaged += 1
        elif entry.value is None:
            table.delete(txn, entry.key)
        else:
            try:
                value = msgspec.json.decode(entry.value, type=table.value_type)
            except msgspec.DecodeError:
                damaged += 1
            else:
                table.put(txn, entry.key, value)
    return damaged
