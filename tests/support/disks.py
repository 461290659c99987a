"""Disks that are full soon, lose their power, or have bad sectors."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import short_folder
from tests.support.requirements import missing, need, need_root

_EXT4_BYTES = 256 << 20
_BTRFS_BYTES = 128 << 20
_SECTOR = 4096

# linux/fs/ext4/ext4.h: EXT4_IOC_SHUTDOWN, and its flag that leaves the journal unwritten
_SHUTDOWN = 0x8004587D
_WITHOUT_JOURNAL = 2


@contextmanager
def tiny_disk(megabytes: int) -> Iterator[Path]:
    """A filesystem in memory of so many megabytes; unmounted afterwards."""
    need("mount")
    need_root()
    with short_folder() as folder:
        argv = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        subprocess.run(argv, check=True)
        yield folder  # short_folder unmounts it


def need_loop_devices(*commands: str) -> None:
    """Go on only where files can be mounted, and *commands* are installed."""
    need_root()
    need("mount", "losetup", *commands)
    if subprocess.run(["losetup", "--find"], check=False, capture_output=True).returncode:
        missing("a loop device (in a container: one that may use /dev/loop*)")


@dataclass(slots=True)
class Ext4:
    """An ext4 in the file *image*, mounted at *folder* while it is in use."""

    image: Path
    folder: Path
    _is_cut: bool = False

    def cut(self) -> None:
        """The power goes: from here on nothing reaches the disk."""
        self._is_cut = True
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_JOURNAL))
        finally:
            os.close(descriptor)

    def become_read_only(self) -> None:
        """The filesystem finds an error in itself: it takes no change until it is mounted again."""
        argv = ["findmnt", "--noheadings", "--output", "SOURCE", "--mountpoint", str(self.folder)]
        device = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
        Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("a test")

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """What is on the disk, its journal replayed; nobody may use it any more at the end."""
        if self._is_cut:
            self._restore_power()
        _run("mount", "-o", "loop", self.image, self.folder)
        try:
            yield self.folder
        finally:
            _run("umount", self.folder)

    def _restore_power(self) -> None:
        """Go on with a copy of the image.

        A mount namespace of another process may still hold the old mount: mounted again, the same
        image would be the filesystem that was shut down.
        """
        number = int(self.image.suffix[1:]) + 1
        copy = self.image.with_suffix(f".{number}")
        _run("cp", "--sparse=always", self.image, copy)
        self.image.unlink()
        self.image = copy
        self._is_cut = False


@contextmanager
def ext4_disk() -> Iterator[Ext4]:
    """A new, empty disk; nothing of it is left afterwards."""
    with short_folder() as folder:  # it unmounts what is still mounted below it
        disk = Ext4(folder / "image.0", folder / "disk")
        disk.folder.mkdir()
        with disk.image.open("wb") as file:
            file.truncate(_EXT4_BYTES)
        _run("mkfs.ext4", "-q", "-e", "remount-ro", disk.image)
        yield disk


@dataclass(frozen=True, slots=True)
class Btrfs:
    """A btrfs in the file *image*, mounted at *folder*; EIO where a checksum is wrong."""

    image: Path
    folder: Path

    def lose(self, path: Path) -> None:
        """A sector of the file *path* is bad from now on; nobody may have a file open."""
        sector = path.read_bytes()[:_SECTOR]
        assert len(sector) == _SECTOR, "smaller files lie among the metadata"
        _run("umount", self.folder)
        content = self.image.read_bytes()
        assert content.count(sector) == 1, "another file has the same bytes"
        with self.image.open("rb+") as file:
            file.seek(content.index(sector))
            file.write(bytes([sector[0] ^ 1]))
        _run("mount", "-o", "loop", self.image, self.folder)


@contextmanager
def btrfs_disk() -> Iterator[Btrfs]:
    """A new, empty btrfs; nothing of it is left afterwards."""
    need_loop_devices("mkfs.btrfs")
    with short_folder() as folder:
        disk = Btrfs(folder / "image", folder / "disk")
        disk.folder.mkdir()
        with disk.image.open("wb") as file:
            file.truncate(_BTRFS_BYTES)
        _run("mkfs.btrfs", "-q", "--mixed", disk.image)
        _run("mount", "-o", "loop", disk.image, disk.folder)
        yield disk


def _run(*argv: str | Path) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, argv))} failed: {done.stderr.strip()}")
