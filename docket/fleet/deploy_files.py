"""The logs of deploys in the registry's store: ``deploys/<id>.log``, one JSON row a line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from docket.fleet.deploy_log import Row
from docket.store.filesystem import Filesystem

_FOLDER = "deploys"
_LOG = re.compile(r"[0-9a-f]{8}\.log")
_MAX_LOG = 64 << 20
"""Bytes of a log that are read: 20,000 hosts take about 8 MB."""


class DeployFiles:
    """The folder of logs of one store, whose owner this process is."""

    def __init__(self, location: Path) -> None:
        self._folder = location / _FOLDER
        self._filesystem = Filesystem(location)

    def append(self, deploy_id: str, rows: Sequence[Row]) -> None:
        """Add *rows* to the deploy's log. Returning means that they survive a power cut.

        Raises `StoreFull`, or OSError.
        """
        path = self._path(deploy_id)
        is_new = not path.exists()
        if is_new:
            self._filesystem.make_folder(self._folder)
        with path.open("ab", buffering=0) as file:
            self._filesystem.append(
                file, b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
            )
            self._filesystem.sync(file.fileno())
        if is_new:
            self._filesystem.sync_folder(self._folder)

    def read_all(self) -> Iterator[tuple[str, Iterator[Row]]]:
        """Every deploy's id and rows, by age; a line that was cut ends its log."""
        if not self._folder.is_dir():
            return
        logs = [path for path in self._folder.iterdir() if _LOG.fullmatch(path.name)]
        for path in sorted(logs, key=lambda log: log.stat().st_mtime):
            yield path.stem, _rows(path)

    def remove(self, deploy_id: str) -> None:
        """Forget the deploy's log."""
        self._filesystem.remove(self._path(deploy_id))

    def _path(self, deploy_id: str) -> Path:
        name = f"{deploy_id}.log"
        assert _LOG.fullmatch(name)
        return self._folder / name


def _rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        content = file.read(_MAX_LOG)
    for line in content.splitlines():
        try:
            row = msgspec.json.decode(line, type=dict)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        yield row
