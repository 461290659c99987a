"""Power cuts under mixed load: nothing acknowledged is lost, nothing wrong is served.

    python -m tests.torture.power_cuts --cuts 200

The store lies on an ext4 of its own, in a file behind a loop device. A cut shuts the filesystem
down without writing out what it holds in memory, neither files nor journal; then the server is
killed, and the next one starts on what was really on the disk. Root only.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.store.samples import assert_sound
from tests.support.processes import short_folder
from tests.torture.kills import PINS, Mixed, Report
from tests.torture.servers import server

DISK_BYTES = 256 << 20

MOST_REQUESTS = 150
"""The power is cut before a server has got so many requests."""

# linux/fs/ext4/ext4.h: EXT4_IOC_SHUTDOWN, and its flag that leaves the journal unwritten
_SHUTDOWN = 0x8004587D
_WITHOUT_JOURNAL = 2


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
            file.truncate(DISK_BYTES)
        _run("mkfs.ext4", "-q", disk.image)
        yield disk


def run(disk: Ext4, *, cuts: int, seed: int) -> Report:
    """Cut the power of *disk* *cuts* times; stops at the first loss."""
    rng = random.Random(seed)
    mixed = Mixed(seed=seed, power_cuts=True)
    report = Report(seed, what="power cuts")
    began = time.monotonic()
    while report.kills < cuts and not mixed.lost:
        with disk.mounted() as folder:
            location = folder / "registry"
            with server(location, pin_seconds=rng.choice(PINS)) as running:
                report.starts.append(running.start_seconds)
                mixed.settle(running.url)
                threads = mixed.work(running.url, requests=rng.randrange(1, MOST_REQUESTS))
                disk.cut()
                running.kill()
            for thread in threads:
                thread.join()
            report.kills += 1
        with disk.mounted() as folder:
            assert_sound(folder / "registry")
    report.seconds = time.monotonic() - began
    report.tally = mixed.tally()
    return report


def main() -> int:
    """The command; exit code 1 when anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    with ext4_disk() as disk:
        report = run(disk, cuts=options.cuts, seed=options.seed)
    sys.stdout.write("".join(f"{line}\n" for line in (*report.tally.lost, report)))
    return 1 if report.tally.lost else 0


def _run(*argv: str | Path) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, argv))} failed: {done.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(main())
