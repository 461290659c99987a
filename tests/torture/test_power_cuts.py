"""Power cuts on a real filesystem; `make torture` does the same for longer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.disks import ext4_disk, need_loop_devices
from tests.support.requirements import need
from tests.torture.power_cuts import run

pytestmark = pytest.mark.xdist_group("torture")

CUTS = 30


def test_power_cuts_under_load() -> None:
    """Invariant 1: what was acknowledged before a power cut is there after it, every byte."""
    need_loop_devices("mkfs.ext4")
    with ext4_disk() as disk:
        report = run(disk, cuts=CUTS, seed=7)
    assert report.tally.lost == []
    assert report.kills == CUTS
    assert report.tally.pushed > CUTS
    assert report.tally.swept > 0
    assert report.tally.in_doubt > 0


def test_a_cut_loses_what_was_not_synced() -> None:
    """The cut is one: of two files only the synced one is whole afterwards."""
    need_loop_devices("mkfs.ext4")
    with ext4_disk() as disk:
        with disk.mounted() as folder:
            subprocess.run(["sync", "--file-system", str(folder)], check=True)
            write(folder / "synced", sync=True)
            write(folder / "unsynced", sync=False)
            disk.cut()
        with disk.mounted() as folder:
            assert (folder / "synced").read_bytes() == b"content"
            assert not (folder / "unsynced").exists()


def test_another_namespace_holds_the_mount() -> None:
    """A process that still has the disk mounted changes nothing of what is there after the cut."""
    need_loop_devices("mkfs.ext4")
    need("unshare")
    with ext4_disk() as disk, ExitStack() as stack:
        with disk.mounted() as folder:
            write(folder / "synced", sync=True)
            stack.enter_context(copy_of_all_mounts())
            disk.cut()
        with disk.mounted() as folder:
            assert (folder / "synced").read_bytes() == b"content"


@contextmanager
def copy_of_all_mounts() -> Iterator[None]:
    """A process with a mount namespace of its own, which holds what is mounted now."""
    argv = ["unshare", "--mount", "sh", "-c", "echo ready; read _"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        yield
        process.communicate(b"\n")


def write(path: Path, *, sync: bool) -> None:
    """A small file, synced if asked for."""
    path.write_bytes(b"content")
    if sync:
        subprocess.run(["sync", str(path)], check=True)
