"""What a rebuild has set aside: the index and the journal before it, which nobody reads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from docket.store.filesystem import Filesystem
from docket.store.layout import JOURNAL, OLD_INDEX

SET_ASIDE_SECONDS = 30 * 24 * 3600.0
"""How long gc keeps it."""


def drop_set_aside(filesystem: Filesystem, *, older_than: float, dry_run: bool = False) -> int:
    """Remove what was set aside before *older_than*, in seconds since 1970; the bytes it had."""
    freed = 0
    for path in _set_aside(filesystem.location):
        renamed = path.stat().st_ctime
        if renamed > time.time() + 1:  # a clock was ahead: it gets older from now on
            filesystem.touch(path)
        elif renamed < older_than:
            files = [path, *path.rglob("*")] if path.is_dir() else [path]
            freed += sum(file.stat().st_blocks * 512 for file in files)
            if not dry_run:
                (filesystem.remove_folder if path.is_dir() else filesystem.remove)(path)
    return freed


def _set_aside(location: Path) -> Iterator[Path]:
    if (location / OLD_INDEX).exists():
        yield location / OLD_INDEX
    yield from (location / JOURNAL).glob("*.old")
