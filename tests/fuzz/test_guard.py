"""The guard of the fuzzers itself: what it must notice, and what it must let pass."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.guard import WroteOutside, only_within, peak_megabytes

Step = Callable[[Path], object]


def _write(path: Path) -> None:
    path.write_bytes(b"x")


def _rename(path: Path) -> None:
    (path.parent / "there").rename(path)


WRITES: dict[str, Step] = {
    "a file": _write,
    "an open file": lambda path: os.open(path, os.O_CREAT | os.O_WRONLY),
    "a temporary file": lambda path: tempfile.mkstemp(dir=path.parent),
    "a folder": lambda path: path.mkdir(),
    "a name": _rename,
    "a hard link": lambda path: path.hardlink_to(path.parent / "there"),
    "a symlink": lambda path: path.symlink_to("there"),
    "a removal": lambda path: (path.parent / "there").unlink(),
    "a truncation": lambda path: os.truncate(path.parent / "there", 0),
    "rights": lambda path: (path.parent / "there").chmod(0o600),
}


@pytest.mark.parametrize("kind", WRITES)
def test_a_write_outside_is_noticed(kind: str, tmp_path: Path) -> None:
    """Whatever changes a file elsewhere, nothing is changed and the input is a finding."""
    (tmp_path / "there").write_bytes(b"there")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WroteOutside), only_within(tmp_path / "folder"):
        WRITES[kind](tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"there", "folder"}
    assert (tmp_path / "there").read_bytes() == b"there"


def test_a_write_outside_that_is_swallowed_is_noticed(tmp_path: Path) -> None:
    """Code that catches everything hides nothing."""
    (tmp_path / "folder").mkdir()
    swallowing = contextlib.suppress(BaseException)
    with pytest.raises(WroteOutside), only_within(tmp_path / "folder"), swallowing:
        _write(tmp_path / "new")


@pytest.mark.parametrize("way", ["folder/../new", "folder/out/new"])
def test_a_way_out_is_noticed(way: str, tmp_path: Path) -> None:
    """Neither dots nor links in the folder lead out of it."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "out").symlink_to(tmp_path)
    with pytest.raises(WroteOutside), only_within(tmp_path / "folder"):
        _write(tmp_path / way)


@pytest.mark.parametrize("kind", WRITES)
def test_a_write_inside_is_fine(kind: str, tmp_path: Path) -> None:
    """The folder is docket's, and reading is free everywhere; so is all when nothing is tried."""
    (tmp_path / "there").write_bytes(b"there")
    with only_within(tmp_path):
        Path(__file__).read_bytes()
        WRITES[kind](tmp_path / "new")
    _write(tmp_path.parent / f"{tmp_path.name}-after")


def in_child(code: str) -> subprocess.CompletedProcess[str]:
    """Run *code* with the guard's names."""
    lines = f"from tests.fuzz.guard import *\n{code}"
    return subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, check=False, timeout=60
    )


def test_an_input_that_hangs_ends_the_process() -> None:
    """Also one that catches all errors; the stack says where it was."""
    done = in_child("with within_seconds(0.2):\n    while True: pass")
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert in_child("with within_seconds(30): pass").returncode == 0


def test_the_peak_is_that_of_this_process() -> None:
    """Memory that was given back counts, that of the parent doesn't."""
    ballast = bytearray(b"x" * (120 << 20))
    done = in_child("before = peak_megabytes(); b'x' * (64 << 20); print(before, peak_megabytes())")
    before, after = map(int, done.stdout.split())
    assert before < 100 <= peak_megabytes()
    assert after >= before + 60
    assert len(ballast) == 120 << 20
