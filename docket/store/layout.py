"""A store's folders, and the file VERSION: its format and the piece length of its hashes."""

from __future__ import annotations

import json
from pathlib import Path

from docket.errors import StoreFormat
from docket.pieces import PIECE_LENGTH
from docket.store.filesystem import Filesystem

BLOBS = "blobs"
UPLOADS = "uploads"
INCOMING = "incoming"
SWARM = "swarm"
TRASH = "trash"
QUARANTINE = "quarantine"
JOURNAL = "journal"
INDEX = "index"
FSCK = "fsck"

FOLDERS = (BLOBS, UPLOADS, INCOMING, SWARM, TRASH, QUARANTINE)
"""The folders that every open store has, apart from those of the index and the journal."""

_VERSION = {"format": 1, "piece_length": PIECE_LENGTH}


def check_format(location: Path, filesystem: Filesystem) -> None:
    """Mark a new store; raises `StoreFormat` when this docket doesn't read the one at *location*.

    A VERSION file that can't be read as such is damage, not another format: the error says so.
    """
    path = location / "VERSION"
    if not path.exists():
        if (location / INDEX).exists():
            raise StoreFormat(f"{location} has an index but no VERSION file")
        draft = location / "VERSION.new"
        filesystem.write_new(draft, json.dumps(_VERSION).encode() + b"\n")
        filesystem.place(draft, path)
    elif (version := _version_in(path)) != _VERSION:
        raise StoreFormat(f"the store at {location} is {version}; this docket reads {_VERSION}")


def index_is_missing(location: Path) -> bool:
    """Whether a store has a journal but no index, such as between two renames of a rebuild."""
    return not (location / INDEX / "data.mdb").exists() and any((location / JOURNAL).glob("*"))


def _version_in(path: Path) -> object:
    content = path.read_bytes()
    try:
        return json.loads(content)
    except ValueError:
        return content[:80]
