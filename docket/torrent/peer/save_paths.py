"""Folders under names that libtorrent opens in every locale."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path


class SavePaths:
    """Gives each folder a name in ASCII, until it is closed.

    libtorrent takes paths as UTF-8, converts them to the characters of the locale and replaces
    what doesn't fit: in the locale C, or for a folder whose name isn't UTF-8, it would write
    somewhere else. A descriptor of the folder has a name without such characters.
    """

    def __init__(self) -> None:
        self._descriptors: dict[Path, int] = {}
        self._lock = threading.Lock()

    def path(self, folder: Path) -> str:
        """A name of *folder*, which exists."""
        if str(folder).isascii() and str(folder).isprintable():
            return str(folder)
        with self._lock:
            if folder not in self._descriptors:
                self._descriptors[folder] = os.open(folder, os.O_PATH | os.O_DIRECTORY)
            return f"/proc/self/fd/{self._descriptors[folder]}"

    def close(self) -> None:
        """Close the descriptors; no session may use the names any more."""
        with self._lock:
            for descriptor in self._descriptors.values():
                with suppress(OSError):
                    os.close(descriptor)
            self._descriptors.clear()
