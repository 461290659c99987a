"""Injuries to a closed store: what bad disks, crashes and people do to files and rows."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from docket.oci.digest import Digest

ROWS = ("blobs", "links", "manifests", "tags", "pieces", "torrents")
_DIGEST = re.compile("[0-9a-f]{64}")
EDGES = ("parents", "children", "referrers", "layers")


@dataclass(frozen=True, slots=True)
class Injury:
    """What was done, and the texts of which a check must name one."""

    what: str
    names: tuple[str, ...]


def injure(location: Path, rng: random.Random, taken: set[str]) -> Injury:
    """One injury more; *taken* are files and rows that have one already."""
    kinds: list[Callable[[Path, random.Random, set[str]], Injury | None]] = [
        flip_bit_in_blob,
        truncate_blob,
        grow_blob,
        remove_blob,
        add_orphan,
        flip_bit_in_row,
        flip_bit_in_edge,
        remove_row,
        remove_edge,
        flip_bit_in_journal,
    ]
    while True:
        if injury := rng.choice(kinds)(location, rng, taken):
            return injury


def flip_bit_in_blob(location: Path, rng: random.Random, taken: set[str]) -> Injury | None:
    """One bit of a blob's file is another."""
    path = _some_blob(location, rng, taken)
    return _injured(path, "bit", lambda content: _flipped(content, rng))


def truncate_blob(location: Path, rng: random.Random, taken: set[str]) -> Injury | None:
    """A blob's file lost its end."""
    path = _some_blob(location, rng, taken)
    return _injured(path, "cut", lambda content: content[: rng.randrange(len(content))])


def grow_blob(location: Path, rng: random.Random, taken: set[str]) -> Injury | None:
    """A blob's file got more than it should have."""
    path = _some_blob(location, rng, taken)
    return _injured(path, "grown", lambda content: content + b"x")


def remove_blob(location: Path, rng: random.Random, taken: set[str]) -> Injury | None:
    """A blob's file is gone."""
    if (path := _some_blob(location, rng, taken)) is None:
        return None
    path.unlink()
    return Injury(f"file {path.name} removed", (path.name,))


def add_orphan(location: Path, rng: random.Random, taken: set[str]) -> Injury:
    """A file lies there that no row knows, as after a crash."""
    content = rng.randbytes(100)
    digest = Digest.of(content)
    taken.add(digest.hex)
    path = location / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return Injury(f"orphan {digest}", (digest.hex,))


def flip_bit_in_row(location: Path, rng: random.Random, taken: set[str]) -> Injury | None:
    """One bit of a row's value is another."""
    table = rng.choice(ROWS)
    with _table(location, table) as (txn, db):
        if (chosen_row := _some_row(txn, db, table, rng, taken)) is None:
            return None
        key, value = chosen_row
        txn.put(key, _flipped(value, rng), db=db)
    return Injury(f"bit in {table} {key!r}", (_shown(key),))


def remove_row(location: Path, rng: random.Random, taken: set[str]) -> Injury | None:
    """A row is gone."""
    table = rng.choice(ROWS)
    with _table(location, table) as (txn, db):
        if (chosen_row := _some_row(txn, db, table, rng, taken)) is None:
            return None
        txn.delete(chosen_row[0], db=db)
    return Injury(f"{table} {chosen_row[0]!r} removed", (_shown(chosen_row[0]),))


def flip_bit_in_edge(location: Path, rng: random.Random, taken: set[str]) -> Injury | None:
    """One bit of a value in a table of many is another."""
    table = rng.choice(EDGES)
    with _table(location, table, many=True) as (txn, db):
        if (chosen_row := _some_row(txn, db, table, rng, taken)) is None:
            return None
        key, value = chosen_row
        flipped = _flipped(value, rng)
        txn.delete(key, value, db=db)
        txn.put(key, flipped, db=db)
    names = tuple(f"{table} {_shown(key)} -> {_shown(content)}" for content in (value, flipped))
    return Injury(f"bit in {table} {key!r}", names)


def remove_edge(location: Path, rng: random.Random, taken: set[str]) -> Injury | None:
    """A value in a table of many is gone."""
    table = rng.choice(EDGES)
    with _table(location, table, many=True) as (txn, db):
        if (chosen_row := _some_row(txn, db, table, rng, taken)) is None:
            return None
        txn.delete(*chosen_row, db=db)
    key, value = chosen_row
    return Injury(f"{table} {key!r} removed", (f"{table} {_shown(key)} -> {_shown(value)}",))


def flip_bit_in_journal(location: Path, rng: random.Random, taken: set[str]) -> Injury | None:
    """One bit of the journal is another."""
    if not _take({"journal"}, taken):
        return None
    (path,) = (location / "journal").glob("*.log")
    content = path.read_bytes()
    end = len(content.rstrip(b"\0"))
    path.write_bytes(_flipped(content[:end], rng) + content[end:])
    return Injury("bit in the journal", (" lines",))


def _some_blob(location: Path, rng: random.Random, taken: set[str]) -> Path | None:
    path = rng.choice(sorted(path for path in (location / "blobs").rglob("*") if path.is_file()))
    return path if _take({path.name}, taken) else None


def _injured(path: Path | None, what: str, change: Callable[[bytes], bytes]) -> Injury | None:
    if path is None:
        return None
    path.chmod(0o644)
    with path.open("rb+") as file:
        content = change(file.read())
        file.seek(0)
        file.truncate()
        file.write(content)
        os.fsync(file.fileno())
    return Injury(f"{what} in {path.name}", (path.name,))


def _some_row(
    txn: Any, db: Any, table: str, rng: random.Random, taken: set[str]
) -> tuple[bytes, bytes] | None:
    with txn.cursor(db=db) as cursor:
        rows = [(bytes(key), bytes(value)) for key, value in cursor]
    if not rows:
        return None
    key, value = rng.choice(rows)
    # one injury a blob or manifest: two at once may hide each other
    names = {*_DIGEST.findall(_shown(key)), _shown(key)}
    if table in EDGES:
        # the edge of a tag is as much as the tag
        names |= {*_DIGEST.findall(_shown(value)), _shown(value).replace(" t", " ", 1)}
    return (key, value) if _take(names, taken) else None


def _take(names: set[str], taken: set[str]) -> bool:
    if names & taken:
        return False
    taken |= names
    return True


def _flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@contextmanager
def _table(location: Path, name: str, *, many: bool = False) -> Iterator[tuple[Any, Any]]:
    """A write transaction, and the table *name* of the closed store at *location*."""
    environment = lmdb.open(str(location / "index"), map_size=1 << 30, max_dbs=20)
    try:
        db = environment.open_db(name.encode(), dupsort=many)
        with environment.begin(write=True) as txn:
            yield txn, db
    finally:
        environment.close()


def _shown(key: bytes) -> str:
    return key.decode(errors="replace").replace("\0", " ")
