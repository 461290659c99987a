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
OLD_INDEX = "index.old"
VERSION = "VERSION"
FSCK = "fsck"

FOLDERS = (BLOBS, UPLOADS, INCOMING, SWARM, TRASH, QUARANTINE)
"""The folders that every open store has, apart from those of the index and the journal."""

NAMES = frozenset(
    {*FOLDERS, INDEX, OLD_INDEX, "index.new", "index.draft", JOURNAL, FSCK}
    | {VERSION, f"{VERSION}.new", "lock"}
)
"""All that a store has in its folder."""

_VERSION = {"format": 1, "piece_length": PIECE_LENGTH}


def check_format(location: Path, filesystem: Filesystem) -> None:
    """Mark a new store; raises `StoreFormat` when this docket doesn't read the one at *location*.

    A store whose VERSION or index is lost or damaged is never taken for a new one.
    """
    version = _version_in(location)
    if version is None and not _has_content(location):
        _write_version(location, filesystem)
    elif version is None:
        raise StoreFormat(f"{location} has no VERSION file that can be read; {_rebuild(location)}")
    elif version != _VERSION:
        raise StoreFormat(f"the store at {location} is {version}; this docket reads {_VERSION}")
    elif _has_content(location) and not (location / INDEX / "data.mdb").exists():
        raise StoreFormat(f"the store at {location} has lost its index; {_rebuild(location)}")


def repair_format(location: Path, filesystem: Filesystem) -> None:
    """Write the VERSION file again if it can't be read. Raises `StoreFormat` for another format."""
    version = _version_in(location)
    if version is None:
        _write_version(location, filesystem)
    elif version != _VERSION:
        raise StoreFormat(f"the store at {location} is {version}; this docket reads {_VERSION}")


def _version_in(location: Path) -> dict[str, int] | None:
    """What VERSION says; None if it is missing or damaged."""
    try:
        version = json.loads((location / VERSION).read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    is_version = isinstance(version, dict) and version.keys() == _VERSION.keys()
    return version if is_version and all(isinstance(v, int) for v in version.values()) else None


def _write_version(location: Path, filesystem: Filesystem) -> None:
    draft = location / f"{VERSION}.new"
    filesystem.write_new(draft, json.dumps(_VERSION).encode() + b"\n")
    filesystem.place(draft, location / VERSION)


def _has_content(location: Path) -> bool:
    """Whether anything lies there that a store had before."""
    parts = ((JOURNAL, "*"), (BLOBS, "*/*/*"))
    return (location / INDEX).exists() or any(
        next((location / part).glob(glob), None) for part, glob in parts
    )


def _rebuild(location: Path) -> str:
    return f"run docket fsck --local --rebuild-index -l {location}"
