"""What no input may do: write outside its folder, take too long, or fill the memory."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

INPUT_SECONDS = 5
"""How long one input may take."""

PEAK_MEGABYTES = 256
"""The resident memory that a whole process may ever have, Python and libraries included."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# where the paths stand among the arguments of each event of the interpreter
_CHANGES = {
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.link": (0, 1),
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.utime": (0,),
}


class WroteOutside(BaseException):
    """Something outside the folder was to be written; no `except Exception` may swallow this."""


class _Watch:
    """The folder that may be written to, while there is one, and what else was tried."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.outside: list[str] = []
        sys.addaudithook(self._seen)  # for good: a hook can't be taken away

    def _seen(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event == "open":
            path, _, flags = arguments
            paths = [path] if flags & _WRITING else []
        else:
            paths = [arguments[index] for index in _CHANGES.get(event, ())]
        for path in paths:
            self._check(event, path)

    def _check(self, event: str, path: Any) -> None:
        if isinstance(path, int):
            return  # what is open already
        opened = Path(os.fsdecode(path))
        # links in the folder count by where they lead, the last part by where it stands
        target = opened.parent.resolve() / opened.name
        assert self.folder
        if not target.is_relative_to(self.folder) and str(target) != os.devnull:
            self.outside.append(f"{event} {target}")
            raise WroteOutside(self.outside[-1])


_watch: _Watch | None = None


@contextmanager
def only_within(folder: Path) -> Iterator[None]:
    """Raise `WroteOutside` when anything is written, renamed, linked or removed elsewhere."""
    global _watch
    _watch = _watch or _Watch()
    _watch.folder, _watch.outside = folder.resolve(), []
    try:
        yield
    finally:
        _watch.folder = None
    if _watch.outside:
        raise WroteOutside(_watch.outside[0])


@contextmanager
def within_seconds(seconds: float) -> Iterator[None]:
    """End the process with the stacks of all threads on standard error when it takes longer."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def peak_megabytes() -> int:
    """The most resident memory that this process had; its parent's doesn't count."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10
