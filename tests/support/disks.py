"""Disks that are full soon."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import short_folder
from tests.support.requirements import need, need_root


@contextmanager
def tiny_disk(megabytes: int) -> Iterator[Path]:
    """A filesystem in memory of so many megabytes; unmounted afterwards."""
    need("mount")
    need_root()
    with short_folder() as folder:
        argv = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        subprocess.run(argv, check=True)
        yield folder  # short_folder unmounts it
