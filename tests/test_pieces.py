"""The piece hashes of a blob, and which of its pieces a file has."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from docket.pieces import HASH_SIZE, PIECE_LENGTH, PieceHasher, have_pieces
from tests.torrent.samples import piece_hashes

_PIECE = 1024
_BLOB = os.urandom(5 * _PIECE + 300)


@pytest.mark.parametrize("size", [1, _PIECE - 1, _PIECE, _PIECE + 1, 3 * _PIECE, len(_BLOB)])
def test_each_piece_is_hashed_with_zeros_up_to_its_length(size: int) -> None:
    """The hashes are those of the blob padded with zeros to whole pieces (BEP 47)."""
    hasher = PieceHasher(_PIECE)
    hasher.update(_BLOB[:size])
    padded = _BLOB[:size] + bytes(-size % _PIECE)
    expected = [
        hashlib.sha1(padded[at : at + _PIECE]).digest() for at in range(0, len(padded), _PIECE)
    ]
    assert hasher.finish() == b"".join(expected)


@pytest.mark.parametrize("step", [1, 7, _PIECE - 1, _PIECE, _PIECE + 1, 3 * _PIECE + 5])
def test_the_size_of_blocks_changes_nothing(step: int) -> None:
    """However the stream is cut, the hashes are the same."""
    whole = PieceHasher(_PIECE)
    whole.update(_BLOB)
    cut = PieceHasher(_PIECE)
    for at in range(0, len(_BLOB), step):
        cut.update(memoryview(_BLOB)[at : at + step])
    assert cut.finish() == whole.finish()


def test_no_bytes_have_no_piece() -> None:
    """An empty blob has no hash at all."""
    hasher = PieceHasher()
    hasher.update(b"")
    assert hasher.finish() == b""


def test_the_piece_length_stays_what_it_was() -> None:
    """64 KiB: another length would make other torrents of all images there are."""
    assert PIECE_LENGTH == 64 * 1024
    assert len(piece_hashes(bytes(PIECE_LENGTH + 1))) == 2 * HASH_SIZE


def test_a_whole_file_has_all_pieces(tmp_path: Path) -> None:
    """All pieces of a right file are there, its short last one too."""
    path = tmp_path / "blob"
    path.write_bytes(_BLOB)
    assert have_pieces(path, len(_BLOB), _hashes(), _PIECE) == [True] * 6


def test_a_missing_file_has_none(tmp_path: Path) -> None:
    """A file that isn't there has no pieces, and that is no error."""
    assert have_pieces(tmp_path / "no", len(_BLOB), _hashes(), _PIECE) == [False] * 6


def test_a_short_file_has_its_whole_pieces_alone(tmp_path: Path) -> None:
    """A piece that the file ends in is not there."""
    path = tmp_path / "blob"
    path.write_bytes(_BLOB[: 2 * _PIECE + 17])
    assert have_pieces(path, len(_BLOB), _hashes(), _PIECE) == [True] * 2 + [False] * 4


@pytest.mark.parametrize("wrong", [0, 3 * _PIECE + 1, len(_BLOB) - 1])
def test_a_wrong_byte_costs_its_piece_alone(tmp_path: Path, wrong: int) -> None:
    """Where a byte differs, that piece is not there and all others are."""
    content = bytearray(_BLOB)
    content[wrong] ^= 1
    path = tmp_path / "blob"
    path.write_bytes(content)
    expected = [True] * 6
    expected[wrong // _PIECE] = False
    assert have_pieces(path, len(_BLOB), _hashes(), _PIECE) == expected


def test_a_sparse_file_has_what_was_written(tmp_path: Path) -> None:
    """Holes are no pieces, whatever stands around them."""
    blob = os.urandom(4 * PIECE_LENGTH)
    path = tmp_path / "blob"
    with path.open("wb") as file:
        file.truncate(len(blob))
        file.seek(2 * PIECE_LENGTH)
        file.write(blob[2 * PIECE_LENGTH : 3 * PIECE_LENGTH])
    have = have_pieces(path, len(blob), piece_hashes(blob), PIECE_LENGTH)
    assert have == [False, False, True, False]


def test_a_piece_of_zeros_counts_when_it_was_written(tmp_path: Path) -> None:
    """Zeros that the file really has are a piece; as a hole they are fetched again."""
    blob = bytes(2 * PIECE_LENGTH)
    written, hole = tmp_path / "written", tmp_path / "hole"
    written.write_bytes(blob)
    with hole.open("wb") as file:
        file.truncate(len(blob))
    hashes = piece_hashes(blob)
    assert have_pieces(written, len(blob), hashes, PIECE_LENGTH) == [True, True]
    assert have_pieces(hole, len(blob), hashes, PIECE_LENGTH) == [False, False]


def _hashes() -> bytes:
    hasher = PieceHasher(_PIECE)
    hasher.update(_BLOB)
    return hasher.finish()
