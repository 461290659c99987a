"""Layers that are read while they arrive: only verified bytes, from any offset."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from docket.agent.arriving import ArrivingLayer
from docket.errors import LayerFailed, RegistryError
from docket.oci.digest import Digest
from docket.pieces import PieceHasher

LENGTH = 1024
CONTENT = random.Random(1).randbytes(10 * LENGTH + 100)
PIECES = [CONTENT[start : start + LENGTH] for start in range(0, len(CONTENT), LENGTH)]


def hashes() -> bytes:
    """The piece hashes of the content."""
    hasher = PieceHasher(LENGTH)
    hasher.update(CONTENT)
    return hasher.finish()


@pytest.fixture
def layer(tmp_path: Path) -> ArrivingLayer:
    """A layer that comes into ``file``, which doesn't exist yet."""
    arriving = ArrivingLayer(Digest.of(CONTENT), len(CONTENT))
    arriving.begin(tmp_path / "file", hashes(), LENGTH)
    return arriving


def write(tmp_path: Path, number: int, content: bytes) -> None:
    """Write piece *number*, as a download does."""
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.pwrite(descriptor, content, number * LENGTH)
    os.close(descriptor)


def test_nothing_is_read_before_a_piece_is_there(layer: ArrivingLayer, tmp_path: Path) -> None:
    """No file, an empty file, holes, and half a piece give no bytes."""
    assert layer.read(0, 100) == b""
    write(tmp_path, 5, PIECES[5])
    assert layer.read(0, 100) == b""
    write(tmp_path, 0, PIECES[0][:500])
    assert layer.read(0, 100) == b""


def test_bytes_are_read_as_far_as_their_pieces_are_right(
    layer: ArrivingLayer, tmp_path: Path
) -> None:
    """From any offset, up to the first piece that is missing or wrong."""
    for number in (0, 1, 2, 4):
        write(tmp_path, number, PIECES[number])
    assert layer.read(0, 10_000) == CONTENT[: 3 * LENGTH]
    assert layer.read(LENGTH + 10, 20) == CONTENT[LENGTH + 10 : LENGTH + 30]
    assert layer.read(4 * LENGTH + 1, 10_000) == CONTENT[4 * LENGTH + 1 : 5 * LENGTH]
    write(tmp_path, 3, bytes(LENGTH))
    assert layer.read(3 * LENGTH, 10) == b""


def test_the_last_short_piece_is_verified_too(layer: ArrivingLayer, tmp_path: Path) -> None:
    """It is hashed with zeros up to the piece length."""
    write(tmp_path, 10, PIECES[10])
    assert layer.read(10 * LENGTH, 10_000) == PIECES[10]
    assert layer.read(len(CONTENT), 10) == b""


def test_an_adopted_layer_is_read_from_its_blob(layer: ArrivingLayer, tmp_path: Path) -> None:
    """Also when no torrent told its pieces, as when all came over HTTP."""
    (tmp_path / "blob").write_bytes(CONTENT)
    plain = ArrivingLayer(Digest.of(CONTENT), len(CONTENT))
    assert plain.read(0, 10) == b""
    for arriving in (plain, layer):
        arriving.adopted(tmp_path / "blob")
        assert arriving.read(0, len(CONTENT)) == CONTENT


def test_a_layer_is_read_though_its_folder_is_gone(layer: ArrivingLayer, tmp_path: Path) -> None:
    """A reader may begin after the download has ended; nobody closes the file but the last one."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    layer.adopted(path)
    path.unlink()
    assert layer.read(0, len(CONTENT)) == CONTENT
    late = ArrivingLayer(Digest.of(CONTENT), len(CONTENT))
    late.adopted(path)
    with pytest.raises(LayerFailed):
        late.read(0, 10)


def test_layers_that_nobody_reads_any_more_hold_no_file(tmp_path: Path) -> None:
    """An agent that runs for months opens a file for each layer."""
    (tmp_path / "blob").write_bytes(CONTENT)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        arriving = ArrivingLayer(Digest.of(CONTENT), len(CONTENT))
        arriving.adopted(tmp_path / "blob")
        assert arriving.read(0, 10) == CONTENT[:10]
    del arriving
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_reader_that_is_ahead_of_a_failure_learns_of_it(
    layer: ArrivingLayer, tmp_path: Path
) -> None:
    """An engine must see a broken answer, not a short layer; an adopted layer can't fail."""
    write(tmp_path, 0, PIECES[0])
    assert layer.read(0, 10) == CONTENT[:10]
    layer.fail(RegistryError("the registry is gone"))
    with pytest.raises(LayerFailed, match="the registry is gone"):
        layer.read(0, 10)
    (tmp_path / "blob").write_bytes(CONTENT)
    layer.adopted(tmp_path / "blob")
    layer.fail(RegistryError("late"))
    assert layer.read(0, 10) == CONTENT[:10]
