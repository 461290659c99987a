"""Who may read a store: its owner alone."""

from __future__ import annotations

import stat
from pathlib import Path

from tests.store.samples import image, open_store, push


def mode(path: Path) -> int:
    """The permissions of *path*."""
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_location_is_closed_to_others(tmp_path: Path) -> None:
    """Nobody else may open its lock, and so hold it, or read what is in it."""
    with open_store(tmp_path / "new" / "store") as store:
        push(store, "app", image("a"))
    assert mode(tmp_path / "new" / "store") == 0o700
    assert mode(tmp_path / "new" / "store" / "lock") == 0o600


def test_an_open_location_is_closed(tmp_path: Path) -> None:
    """A store of an earlier docket is closed when it is opened."""
    with open_store(tmp_path / "store"):
        pass
    (tmp_path / "store").chmod(0o755)
    with open_store(tmp_path / "store"):
        assert mode(tmp_path / "store") == 0o700


def test_a_folder_with_other_things_stays_open(tmp_path: Path) -> None:
    """A location that isn't the store's alone, such as a home, is not closed: its parts are."""
    (tmp_path / "mine").write_text("x")
    tmp_path.chmod(0o755)
    for _ in range(2):
        with open_store(tmp_path):
            pass
    assert mode(tmp_path) == 0o755
    assert {mode(tmp_path / name) & 0o077 for name in ("index", "blobs", "lock")} == {0}
