"""What a stored layer unpacks to: one read of its file, bounded, and ended by a flag."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from docket.compression import NONE
from docket.decompression import MAX_WINDOW, Decompressor, WorkBudget
from docket.errors import InvalidInput, WindowTooLarge
from docket.oci.digest import READ_SIZE, Digest, new_hash

MAX_PLAIN = 1 << 40
"""Bytes that a layer may unpack to; nothing is known of one that is larger."""

# beside one more for each 2 MiB: 60 GB of zeros at 200 MB/s; only the diff_id of a bomb is lost
_UNPACK_SECONDS = 300
# what each layer may take to look back; zstd needs more from level 20 on, or with --long
_USUAL_WINDOW = 8 << 20
_POLL_SECONDS = 0.1

# layers that need more memory are unpacked one at a time
_wide = threading.Lock()


class Stopped(Exception):
    """The process ends; the layer is unpacked another time."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What a layer unpacks to: its diff_id, the bytes of the plain tar, and what compressed it."""

    diff_id: Digest
    size: int
    compression: str = NONE


IsStopped = Callable[[], bool]


def unpack_file(path: Path, *, is_stopped: IsStopped = lambda: False) -> Unpacked | None:
    """What the compressed layer at *path* unpacks to; None if it can't be, or is too large.

    Raises `Stopped` soon after *is_stopped* returns True, and OSError when the file can't be read.
    """
    try:
        return _unpack(path, is_stopped, window=_USUAL_WINDOW)
    except WindowTooLarge:
        pass
    except InvalidInput:
        return None
    while not _wide.acquire(timeout=_POLL_SECONDS):
        if is_stopped():
            raise Stopped
    try:
        return _unpack(path, is_stopped, window=MAX_WINDOW)
    except InvalidInput:
        return None
    finally:
        _wide.release()


def _unpack(path: Path, is_stopped: IsStopped, *, window: int) -> Unpacked:
    plain = new_hash()
    budget = WorkBudget(_UNPACK_SECONDS)
    decompressor = Decompressor(limit=MAX_PLAIN, budget=budget, window=window)
    for block in _blocks(path):
        budget.allow(len(block))
        for part in decompressor.feed(block):
            plain.update(part)
            if is_stopped():
                raise Stopped
    decompressor.finish()
    digest = Digest("sha256", plain.hexdigest())
    return Unpacked(digest, decompressor.size, decompressor.compression)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while block := file.read(READ_SIZE):
            yield block
