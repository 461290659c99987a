"""A store on a disk that can't hold it is refused at the start, in one line."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from docket.errors import StoreUnusable
from tests.store.samples import open_store


def test_blobs_on_another_disk(tmp_path: Path) -> None:
    """Files are renamed and linked within a store: it must be on one disk."""
    elsewhere = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        (tmp_path / "blobs").symlink_to(elsewhere)
        with pytest.raises(StoreUnusable, match="blobs/ is on another disk"):
            open_store(tmp_path)
    finally:
        shutil.rmtree(elsewhere)
