"""What a start does: as much with many blobs as with few."""

from __future__ import annotations

import sys
from pathlib import Path

from docket.store import Store
from tests.store.samples import image, open_store, push

FILE_CALLS = ("open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir", "os.link")


def fill(store: Store, blobs: int) -> None:
    """So many small blobs, and an image."""
    for number in range(blobs):
        store.blobs.put(b"blob %d" % number, repository="app")
    push(store, "app", image("base", "one"))


class Calls:
    """Counts the calls for files below *location*, and the store's own steps."""

    def __init__(self, location: Path) -> None:
        self._location = str(location)
        self.seen: list[str] | None = None
        sys.addaudithook(self._audit)  # it stays as long as the process: it looks at `seen` first

    def step(self, name: str) -> None:
        """A step of the store."""
        if self.seen is not None:
            self.seen.append(name.split()[0])

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.seen is None or event not in FILE_CALLS:
            return
        if str(arguments[0]).startswith(self._location):
            self.seen.append(event)


def test_a_start_looks_at_no_blob(tmp_path: Path) -> None:
    """The start of a registry takes as long with many blobs as with few: it does the same."""
    seen = []
    for blobs in (5, 400):
        location = tmp_path / f"store-{blobs}"
        with open_store(location) as store:
            fill(store, blobs)
        calls = Calls(location)
        calls.seen = []
        with open_store(location, step=calls.step):
            seen.append(calls.seen)
            calls.seen = None
    assert len(seen[0]) > 10
    assert seen[0] == seen[1]
