"""``pull --output``: a file is whole or stays as it was, and what is no file stays what it is."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from docket.transfer.output import check_output, is_stdout, open_output

CONTENT = b"archive" * 100_000


class Broken(Exception):
    """What ends a write in the middle."""


def written(target: Path, content: bytes = CONTENT) -> None:
    """Write *content* as a pull does."""
    check_output(str(target))
    with open_output(str(target)) as file:
        file.write(content)


def test_a_new_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    """As the shell's ``>`` makes it, and nothing else is left in the folder."""
    for mask in (0o022, 0o077):
        path = tmp_path / f"{mask:o}.tar"
        before = os.umask(mask)
        try:
            written(path)
        finally:
            os.umask(before)
        assert path.read_bytes() == CONTENT
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    """What only its owner may read stays so, as with the shell's ``>``."""
    path = tmp_path / "app.tar"
    path.write_bytes(b"old")
    path.chmod(mode)
    written(path)
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt, SystemExit])
def test_a_write_that_breaks_off(tmp_path: Path, error: type[BaseException]) -> None:
    """The old file stays, and no part of the new one."""
    path = tmp_path / "app.tar"
    path.write_bytes(b"old")

    def break_off() -> None:
        with open_output(str(path)) as file:
            file.write(CONTENT)
            raise error

    with pytest.raises(error):
        break_off()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_of_255_bytes(tmp_path: Path) -> None:
    """The temporary name isn't longer than the file's own."""
    written(tmp_path / ("n" * 255))


def test_links_are_followed_and_stay(tmp_path: Path) -> None:
    """A link to a file, to a link, to a name that is still free, relative or absolute."""
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "app.tar"
    relative, absolute = tmp_path / "relative", tmp_path / "absolute"
    relative.symlink_to("absolute")
    absolute.symlink_to(target)
    for path in (relative, absolute, relative):
        written(path)
        assert path.is_symlink()
        assert target.read_bytes() == CONTENT
        assert not target.is_symlink()
    assert sorted(path.name for path in target.parent.iterdir()) == ["app.tar"]


def test_a_loop_of_links(tmp_path: Path) -> None:
    """It is an error, and it stays."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        written(tmp_path / "a")
    assert (tmp_path / "a").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of other users")
def test_a_link_of_another_user_in_a_shared_folder(tmp_path: Path) -> None:
    """It isn't followed: it may lead to any file that its user may not write."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    link = shared / "app.tar"
    link.symlink_to(precious)
    os.chown(link, 12345, 12345, follow_symlinks=False)
    with pytest.raises(PermissionError):
        written(link)
    assert precious.read_bytes() == b"precious"
    shared.chmod(0o755)
    written(link)
    assert precious.read_bytes() == CONTENT


def test_names_in_use_by_others_are_never_written_through(tmp_path: Path) -> None:
    """The temporary name can't be foreseen, and is never one that is there."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    folder = tmp_path / "shared"
    folder.mkdir()
    for number in range(os.getpid(), os.getpid() + 50):
        (folder / f".app.tar.{number}.part").symlink_to(precious)
    written(folder / "app.tar")
    assert precious.read_bytes() == b"precious"


def test_a_fifo_is_written_to(tmp_path: Path) -> None:
    """Its reader gets the archive, and the fifo stays one."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(fifo.read_bytes()))
    reader.start()
    written(fifo)
    reader.join()
    assert received == [CONTENT]
    assert stat.S_ISFIFO(fifo.lstat().st_mode)


def _device(path: Path) -> None:
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))


def _link_to_device(path: Path) -> None:
    _device(path.with_name("device"))
    path.symlink_to("device")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
@pytest.mark.parametrize("make", [_device, _link_to_device])
def test_a_device_is_written_to(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """It is never replaced by a file, through a link neither."""
    path = tmp_path / "null"
    make(path)
    before = path.lstat()
    written(path)
    after = path.lstat()
    assert (after.st_ino, after.st_mode, after.st_rdev) == (
        before.st_ino,
        before.st_mode,
        before.st_rdev,
    )


@pytest.mark.parametrize("name", ["folder", "nowhere/app.tar", "file/app.tar", "link"])
def test_what_cannot_be_written_is_known_before_the_pull(tmp_path: Path, name: str) -> None:
    """A folder, or a file in a folder that isn't there."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere/app.tar")
    with pytest.raises(OSError, match=r"directory|file"):
        check_output(str(tmp_path / name))


STDOUT = """
import sys
from docket.transfer.output import is_stdout, open_output
assert is_stdout(sys.argv[1])
with open_output(sys.argv[1]) as file:
    file.write(b"archive")
"""


@pytest.mark.parametrize("target", ["-", "/dev/stdout", "/proc/self/fd/1", "/dev/fd/1"])
def test_standard_output_by_any_name(tmp_path: Path, target: str) -> None:
    """A pipe or a file behind it gets the archive, and isn't replaced."""
    argv = [sys.executable, "-c", STDOUT, target]
    assert subprocess.run(argv, capture_output=True, check=True).stdout == b"archive"
    path = tmp_path / "file"
    with path.open("wb") as file:
        subprocess.run(argv, stdout=file, check=True)
        assert path.stat().st_ino == os.fstat(file.fileno()).st_ino
    assert path.read_bytes() == b"archive"
    assert not is_stdout(str(path))
