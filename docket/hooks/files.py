"""Reads the files that engines look at, writes a plan's changes, and undoes them.

A record says what setup wrote, for which engines, and where the content before it is kept. So setup
can be repeated, with another address too, and undo gives back the same bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from docket.errors import InvalidConfiguration
from docket.hooks.plan import FileChange, Plan
from docket.hooks.toml_text import without_blocks

BACKUP_SUFFIX = ".before-docket"
_FORMAT = 1
_MODE = 0o644
_FOLDER_MODE = 0o755
_AS_BEFORE = "as before setup"
_LARGEST = 4 << 20  # bytes of a configuration file


class Action(StrEnum):
    """What happens to a file."""

    CREATE = "create"
    REPLACE = "replace"
    RESTORE = "restore"  # the content before setup comes back
    REMOVE = "remove"  # setup made the file
    UNCHANGED = "unchanged"
    KEEP = "keep"  # it stays, and the reason says why


@dataclass(frozen=True, slots=True)
class Step:
    """A file, what happens to it, and why; *content* is None where no file is left.

    *backup* is where the content before setup is kept, if there was any.
    """

    path: Path
    action: Action
    reason: str
    content: bytes | None = None
    backup: Path | None = None
    is_edited: bool = False  # since setup, so that undo leaves it


@dataclass(slots=True)
class _Entry:
    """What is recorded of a file that setup wrote."""

    engines: list[str]
    sha256: str
    backup: bool
    folders: list[str] = field(default_factory=list)  # made for it, outermost first


class HostFiles:
    """The files of a host below *root*; paths are given as the engines see them.

    *record* is the path of setup's own record.
    """

    def __init__(self, root: Path, record: Path) -> None:
        self._root = root
        self._record = record
        self._entries = self._load()

    def read(self, path: Path) -> bytes | None:
        """The file's content without what setup put into it; None where there was no file."""
        current = self._current(path)
        entry = self._entries.get(str(path))
        if entry is None or current is None:
            return current
        before = self._current(_backup_of(path)) if entry.backup else None
        if _sha256(current) == entry.sha256 and (before is not None or not entry.backup):
            return before
        remainder = _without_ours(current)
        return remainder if remainder.strip() or entry.backup else None

    def text(self, path: Path) -> str | None:
        """What `read` gives, as text. Raises `InvalidConfiguration` if it isn't UTF-8."""
        content = self.read(path)
        try:
            return None if content is None else content.decode()
        except UnicodeDecodeError as error:
            raise InvalidConfiguration(path, "it is not UTF-8 text") from error

    def names(self, folder: Path) -> list[str]:
        """Names in *folder*, sorted, without what setup made; none where it is no folder."""
        try:
            listed = sorted(path.name for path in self._real(folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [name for name in listed if not self._is_ours(folder / name)]

    def is_folder(self, path: Path) -> bool:
        """Whether a folder is there."""
        return self._real(path).is_dir()

    def preview(self, plan: Plan) -> list[Step]:
        """What `apply` would do now; nothing is written."""
        planned = {change.path for change in plan.changes}
        stale = [
            Path(name)
            for name, entry in self._entries.items()
            if plan.engine in entry.engines and Path(name) not in planned
        ]
        restored = [self._undo_step(path, plan.engine) for path in stale]
        return [
            *(self._step_for(change, plan.engine) for change in plan.changes),
            *(step for step in restored if not step.is_edited),
        ]

    def apply(self, plan: Plan) -> list[Step]:
        """Write the plan's changes, each file atomically; gives what was done.

        Returning means all is durable. Files of an earlier setup of this engine that the plan
        doesn't name any more are restored.
        """
        with self._locked():
            steps = self.preview(plan)
            for step in steps:
                self._note_before(step, plan.engine)
            self._save()
            for step in steps:
                self._perform(step, plan.engine)
            self._save()
        return steps

    def preview_undo(self, engine: str) -> list[Step]:
        """What `undo` would do now; nothing is written."""
        recorded = [name for name, entry in self._entries.items() if engine in entry.engines]
        return [self._undo_step(Path(name), engine) for name in sorted(recorded)]

    def undo(self, engine: str) -> list[Step]:
        """Give back what was there before setup of *engine*; gives what was done.

        A file that was edited since loses docket's marked block alone; where that can't be decided
        from the edits, the file stays as it is (`Action.KEEP`).
        """
        with self._locked():
            steps = self.preview_undo(engine)
            for step in steps:
                self._perform(step, engine)
            self._save()
        return steps

    def _step_for(self, change: FileChange, engine: str) -> Step:
        current = self._current(change.path)
        original = self.read(change.path)
        backup = None if original is None else _backup_of(change.path)
        entry = self._entries.get(str(change.path))
        if current is not None and entry and set(entry.engines) - {engine}:
            # both engines read the file; what the first setup wrote holds for both
            others = ", ".join(sorted(set(entry.engines) - {engine}))
            reason = f"as setup of {others} wrote it"
            return Step(change.path, Action.UNCHANGED, reason, current, backup)
        if current == change.content:
            action = Action.UNCHANGED
        else:
            action = Action.CREATE if current is None else Action.REPLACE
        return Step(change.path, action, change.reason, change.content, backup)

    def _undo_step(self, path: Path, engine: str) -> Step:
        entry = self._entries[str(path)]
        current = self._current(path)
        backup = _backup_of(path) if entry.backup else None
        others = [name for name in entry.engines if name != engine]
        if others:
            return Step(path, Action.KEEP, f"setup of {', '.join(others)} needs it", current)
        if current is None and backup is None:
            return Step(path, Action.REMOVE, "somebody removed it already")
        if current is None:
            reason = f"somebody removed it; the content before setup is in {backup}"
            return Step(path, Action.KEEP, reason, None, backup, True)
        if backup and current == self._current(backup):
            return Step(path, Action.RESTORE, _AS_BEFORE, current, backup)
        original = self.read(path)
        if original == current:
            reason = f"it was edited since setup; the content before setup is in {backup}"
            if backup is None:
                reason = "somebody put another file in its place"
            elif self._current(backup) is None:
                reason = f"its backup {backup} is gone"
            return Step(path, Action.KEEP, reason, current, backup, True)
        action = Action.REMOVE if original is None else Action.RESTORE
        return Step(path, action, _AS_BEFORE, original, backup)

    def _note_before(self, step: Step, engine: str) -> None:
        """Record what is about to be written, and keep the content before it."""
        if step.action not in {Action.CREATE, Action.REPLACE, Action.UNCHANGED}:
            return
        name = str(step.path)
        entry = self._entries.get(name)
        if step.content is None or (entry is None and step.action == Action.UNCHANGED):
            return
        original = self.read(step.path)
        folders = (
            entry.folders if entry else [str(folder) for folder in self._absent(step.path.parent)]
        )
        engines = sorted({engine, *(entry.engines if entry else ())})
        if original is not None and step.action != Action.UNCHANGED:
            self._write(_backup_of(step.path), original, like=step.path)
        kept = entry.backup if entry and step.action == Action.UNCHANGED else original is not None
        self._entries[name] = _Entry(engines, _sha256(step.content), kept, folders)

    def _perform(self, step: Step, engine: str) -> None:
        match step.action:
            case Action.CREATE | Action.REPLACE:
                assert step.content is not None
                self._write(step.path, step.content, like=step.path)
            case Action.RESTORE:
                assert step.content is not None
                self._write(step.path, step.content, like=step.path)
                self._forget(step.path)
            case Action.REMOVE:
                self._real(step.path).unlink(missing_ok=True)
                self._forget(step.path)
            case Action.KEEP:
                entry = self._entries[str(step.path)]
                # an edited file keeps its entry, so that its backup stays known
                entry.engines = [name for name in entry.engines if name != engine] or [engine]
            case Action.UNCHANGED:
                pass

    def _forget(self, path: Path) -> None:
        entry = self._entries.pop(str(path))
        self._real(_backup_of(path)).unlink(missing_ok=True)
        for folder in reversed(entry.folders):
            # somebody else's files may be in it by now
            with contextlib.suppress(OSError):
                self._real(Path(folder)).rmdir()

    def _is_ours(self, path: Path) -> bool:
        entry = self._entries.get(str(path))
        if entry:
            return self.read(path) is None
        if path.name.endswith(BACKUP_SUFFIX):
            return str(path).removesuffix(BACKUP_SUFFIX) in self._entries
        made = any(str(path) in entry.folders for entry in self._entries.values())
        return made and not self.names(path)

    def _real(self, path: Path) -> Path:
        assert path.is_absolute(), path
        return self._root / path.relative_to("/")

    def _current(self, path: Path) -> bytes | None:
        """The file's bytes now. Raises `InvalidConfiguration` for what is no regular file."""
        real = self._real(path)
        try:
            status = real.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISLNK(status.st_mode):
            raise InvalidConfiguration(path, "it is a symbolic link; other software keeps it")
        if not stat.S_ISREG(status.st_mode):
            raise InvalidConfiguration(path, "it is not a regular file")
        if status.st_size > _LARGEST:
            raise InvalidConfiguration(path, f"it is larger than {_LARGEST} bytes")
        return real.read_bytes()

    def _absent(self, folder: Path) -> list[Path]:
        above = [folder, *folder.parents]
        return [folder for folder in reversed(above) if not self._real(folder).exists()]

    def _write(self, path: Path, content: bytes, *, like: Path) -> None:
        """Write *path* atomically and durably, with the mode and owner of *like* if it exists."""
        real = self._real(path)
        real.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                self._copy_owner(descriptor, self._real(like))
                file.flush()
                os.fsync(descriptor)
            os.replace(name, real)  # noqa: PTH105
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)  # noqa: PTH108
            raise
        _sync_folder(real.parent)

    @staticmethod
    def _copy_owner(descriptor: int, like: Path) -> None:
        try:
            status = like.stat()
        except FileNotFoundError:
            os.fchmod(descriptor, _MODE)
            return
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Only one setup at a time; the record is read again, as another may have written it."""
        folder = self._real(self._record.parent)
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._entries = self._load()
            yield
        finally:
            os.close(descriptor)

    def _load(self) -> dict[str, _Entry]:
        content = self._current(self._record)
        if content is None:
            return {}
        try:
            record = json.loads(content)
            if record["format"] != _FORMAT:
                raise InvalidConfiguration(self._record, "another version of docket wrote it")
            return {path: _entry(row) for path, row in record["files"].items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidConfiguration(self._record, "it is not docket's record") from error

    def _save(self) -> None:
        if not self._entries:
            self._real(self._record).unlink(missing_ok=True)
            return
        rows = {
            path: {
                "engines": entry.engines,
                "sha256": entry.sha256,
                "backup": entry.backup,
                "folders": entry.folders,
            }
            for path, entry in sorted(self._entries.items())
        }
        content = json.dumps({"format": _FORMAT, "files": rows}, indent=1)
        self._write(self._record, f"{content}\n".encode(), like=self._record)


def _entry(row: dict[str, Any]) -> _Entry:
    entry = _Entry(row["engines"], row["sha256"], row["backup"], row["folders"])
    texts = [*entry.engines, *entry.folders, entry.sha256]
    if not all(isinstance(text, str) for text in texts) or not isinstance(entry.backup, bool):
        raise TypeError("a field has another type")
    return entry


def _backup_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{BACKUP_SUFFIX}")


def _without_ours(content: bytes) -> bytes:
    try:
        return without_blocks(content.decode()).encode()
    except UnicodeDecodeError:
        return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
