"""Setup's writes can be repeated and undone, whatever happened to the files since."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from docket.errors import InvalidConfiguration
from docket.hooks.files import Action, HostFiles, Step
from docket.hooks.plan import FileChange, Plan
from docket.hooks.toml_text import block
from tests.hooks.conftest import PATHS, put, snapshot

Open = Callable[[], HostFiles]

OLD = Path("/etc/engine/old.toml")
NEW = Path("/etc/engine/hosts/new.toml")
RECORD = PATHS.record


def change(path: Path, content: str) -> FileChange:
    """A change of *path* to *content*."""
    return FileChange(path, content.encode(), "because")


def plan_of(*changes: FileChange, engine: str = "engine") -> Plan:
    """A plan of *changes*."""
    return Plan(engine, changes)


def actions(steps: list[Step]) -> list[tuple[str, Action]]:
    """Files by name, with what happened to them."""
    return [(step.path.name, step.action) for step in steps]


PLAN = plan_of(change(OLD, block("x", "b\n") + "a\n"), change(NEW, block("x", "n\n")))


def test_setup_then_undo_restores_bytes_modes_and_folders(root: Path, open_files: Open) -> None:
    """After undo the host is as before setup: no file, folder or record is left of it."""
    put(root, str(OLD), "a\n").chmod(0o600)
    before = snapshot(root)
    steps = open_files().apply(PLAN)
    assert actions(steps) == [("old.toml", Action.REPLACE), ("new.toml", Action.CREATE)]
    assert (root / "etc/engine/old.toml.before-docket").read_text() == "a\n"
    assert (root / "etc/engine/old.toml").stat().st_mode & 0o777 == 0o600
    assert (root / "etc/engine/hosts/new.toml").stat().st_mode & 0o777 == 0o644
    undone = open_files().undo("engine")
    assert actions(undone) == [("new.toml", Action.REMOVE), ("old.toml", Action.RESTORE)]
    assert snapshot(root) == before
    assert not (root / str(RECORD).removeprefix("/")).exists()


def test_a_preview_writes_nothing(root: Path, open_files: Open) -> None:
    """--print shows the same steps and leaves every file alone."""
    put(root, str(OLD), "a\n")
    before = sorted(root.rglob("*"))
    preview = open_files().preview(PLAN)
    assert sorted(root.rglob("*")) == before
    assert preview == open_files().apply(PLAN)
    after = sorted(root.rglob("*"))
    assert open_files().preview_undo("engine") == open_files().undo("engine")
    assert sorted(root.rglob("*")) != after


def test_setup_twice_changes_nothing_the_second_time(root: Path, open_files: Open) -> None:
    """Planners see the files as they were before setup, and the first backup stays."""
    put(root, str(OLD), "a\n")
    open_files().apply(PLAN)
    once = snapshot(root)
    assert open_files().read(OLD) == b"a\n"
    assert open_files().read(NEW) is None
    assert open_files().names(NEW.parent.parent) == ["old.toml"]
    assert {step.action for step in open_files().apply(PLAN)} == {Action.UNCHANGED}
    assert snapshot(root) == once


def test_setup_with_another_address_replaces_its_own_text(root: Path, open_files: Open) -> None:
    """A file that the new plan doesn't name is restored; undo still gives the first bytes back."""
    put(root, str(OLD), "a\n")
    before = snapshot(root)
    open_files().apply(PLAN)
    steps = open_files().apply(plan_of(change(OLD, "a\nother\n")))
    assert actions(steps) == [("old.toml", Action.REPLACE), ("new.toml", Action.REMOVE)]
    open_files().undo("engine")
    assert snapshot(root) == before


def test_an_edit_after_setup_survives_undo(root: Path, open_files: Open) -> None:
    """Of an edited file, undo removes docket's marked block and nothing else."""
    old = put(root, str(OLD), "a\n")
    open_files().apply(PLAN)
    old.write_text(old.read_text() + "mine\n")
    steps = open_files().undo("engine")
    assert ("old.toml", Action.RESTORE) in actions(steps)
    assert old.read_text() == "a\nmine\n"


def test_an_edit_that_cannot_be_told_apart_stays(root: Path, open_files: Open) -> None:
    """Undo leaves such a file and its backup, and says where that is, as often as it is run."""
    old = put(root, str(OLD), "a\n")
    open_files().apply(plan_of(change(OLD, "b\n")))
    old.write_text("b\nmine\n")
    for _ in range(2):
        (step,) = open_files().undo("engine")
        assert (step.action, step.is_edited) == (Action.KEEP, True)
        assert "old.toml.before-docket" in step.reason
    assert old.read_text() == "b\nmine\n"
    assert (root / "etc/engine/old.toml.before-docket").read_text() == "a\n"


@pytest.mark.parametrize("lost", ["old.toml", "old.toml.before-docket"])
def test_a_removed_file_or_backup_is_reported(root: Path, open_files: Open, lost: str) -> None:
    """Without the file or its backup undo changes nothing."""
    put(root, str(OLD), "a\n")
    open_files().apply(plan_of(change(OLD, "b\n")))
    (root / "etc/engine" / lost).unlink()
    before = snapshot(root)
    (step,) = open_files().undo("engine")
    assert (step.action, step.is_edited) == (Action.KEEP, True)
    assert snapshot(root) == before


def test_a_file_that_two_engines_read_stays_until_both_are_undone(
    root: Path, open_files: Open
) -> None:
    """The first undo keeps it; the second gives the old bytes back."""
    put(root, str(OLD), "a\n")
    before = snapshot(root)
    open_files().apply(plan_of(change(OLD, "b\n"), engine="docker"))
    open_files().apply(plan_of(change(OLD, "c\n"), engine="containerd"))
    (step,) = open_files().undo("docker")
    assert (step.action, step.is_edited) == (Action.KEEP, False)
    assert (root / "etc/engine/old.toml").read_text() == "b\n"
    open_files().undo("containerd")
    assert snapshot(root) == before


@pytest.mark.parametrize("stop", range(1, 6))
def test_setup_that_was_stopped_can_be_undone(root: Path, open_files: Open, stop: int) -> None:
    """Killed before any of its writes, setup leaves what undo, or setup again, puts in order."""
    put(root, str(OLD), "a\n")
    before = snapshot(root)

    class Stopped(HostFiles):
        """Files that can be written a few times only."""

        writes = 0

        def _write(self, path: Path, content: bytes, *, like: Path) -> None:
            self.writes += 1
            if self.writes == stop:
                raise KeyboardInterrupt
            super()._write(path, content, like=like)

    with pytest.raises(KeyboardInterrupt):
        Stopped(root, RECORD).apply(PLAN)
    assert open_files().read(OLD) == b"a\n"
    open_files().undo("engine")
    left = {name: row for name, row in snapshot(root).items() if "before-docket" not in name}
    assert left == before
    open_files().apply(PLAN)
    open_files().undo("engine")
    assert snapshot(root) == before


def test_a_symbolic_link_is_refused(root: Path, open_files: Open) -> None:
    """A file that other software links into place is not replaced."""
    put(root, "/elsewhere", "a\n")
    (root / "etc/engine").mkdir(parents=True)
    (root / "etc/engine/old.toml").symlink_to(root / "elsewhere")
    with pytest.raises(InvalidConfiguration, match="symbolic link"):
        open_files().apply(PLAN)
    assert not (root / "etc/engine/hosts").exists()


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"format": 1}', '{"format": 2, "files": {}}', "\udcff" * 3]
)
def test_a_damaged_record_is_refused(root: Path, content: str) -> None:
    """Setup and undo touch nothing when they can't know what setup wrote."""
    real = put(root, str(RECORD), "")
    real.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InvalidConfiguration, match=r"setup\.json"):
        HostFiles(root, RECORD)


def test_the_record_says_what_setup_wrote(root: Path, open_files: Open) -> None:
    """The record is JSON: each file with its engines."""
    open_files().apply(PLAN)
    record = json.loads((root / str(RECORD).removeprefix("/")).read_text())
    assert {path: row["engines"] for path, row in record["files"].items()} == {
        str(OLD): ["engine"],
        str(NEW): ["engine"],
    }
