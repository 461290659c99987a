"""All targets by name, and how an input is tried on one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fuzz import archives, calls, texts, torrents
from tests.fuzz.guard import only_within
from tests.fuzz.target import Check, Target

TARGETS = {
    "archive": archives.ARCHIVE,
    "members": archives.MEMBERS,
    "stream": archives.STREAM,
    "manifest": texts.MANIFEST,
    "name": texts.NAME,
    "announce": texts.ANNOUNCE,
    "range": texts.RANGE,
    "torrent": torrents.TORRENT,
    "call": calls.CALL,
}


@contextmanager
def watched(target: Target, folder: Path) -> Iterator[Check]:
    """The target's check, which may write in *folder* alone."""
    with target.open(folder) as check:

        def tried(content: bytes) -> None:
            with only_within(folder):
                check(content)

        yield tried
