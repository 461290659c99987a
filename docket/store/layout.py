"""The file VERSION: what wrote a store, and the piece length that it keeps for life."""

from __future__ import annotations

import json
from pathlib import Path

from docket.errors import StoreFormat
from docket.store.filesystem import Filesystem

_FORMAT = 1


def check_format(location: Path, disk: Filesystem, piece_length: int) -> None:
    """Mark a new store; raises `StoreFormat` when the one at *location* is of another kind."""
    path = location / "VERSION"
    wanted = {"format": _FORMAT, "piece_length": piece_length}
    if not path.exists():
        if (location / "index").exists():
            raise StoreFormat(f"{location} has an index but no VERSION file")
        fresh = location / "VERSION.new"
        disk.write_new(fresh, json.dumps(wanted).encode() + b"\n")
        disk.place(fresh, path)
    elif (found := _version_in(path)) != wanted:
        raise StoreFormat(f"the store at {location} is {found}; this docket reads {wanted}")


def _version_in(path: Path) -> object:
    content = path.read_bytes()
    try:
        return json.loads(content)
    except ValueError:
        return content[:80]
