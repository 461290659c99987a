"""Counts the bytes of a torrent's blobs by sender: the registry's seed, or other hosts."""

from __future__ import annotations

from dataclasses import dataclass

from docket.oci.digest import Digest
from docket.torrent.metainfo import File, Metainfo
from docket.torrent.peer.events import BlockSeen
from docket.torrent.peer.session_tuning import BLOCK


@dataclass(slots=True)
class BlockCount:
    """Bytes of a blob from the registry's seed, and from other hosts."""

    registry: int = 0
    hosts: int = 0


class BlockCounts:
    """The blocks of one torrent, by the peers that they were requested from and came from."""

    def __init__(self, metainfo: Metainfo) -> None:
        self._metainfo = metainfo
        self._by_piece: list[File] = []
        for file in metainfo.files:
            self._by_piece += [file] * file.pieces
        self._requested: dict[tuple[int, int], bool] = {}
        self._arrived: dict[tuple[int, int], bool] = {}

    def count(self, seen: BlockSeen) -> None:
        """A block was requested, or arrived; of several events of a block the last one counts."""
        table = self._arrived if seen.came else self._requested
        table[seen.piece, seen.block] = seen.from_registry

    def blocks(self) -> dict[Digest, BlockCount]:
        """Bytes of each blob by sender, without padding."""
        counts: dict[Digest, BlockCount] = {}
        for (piece, block), from_registry in (self._requested | self._arrived).items():
            file = self._by_piece[piece]
            start = (piece - file.first_piece) * self._metainfo.piece_length + block * BLOCK
            size = max(min(BLOCK, file.size - start), 0)
            if file.digest is None:
                continue
            count = counts.setdefault(file.digest, BlockCount())
            if from_registry:
                count.registry += size
            else:
                count.hosts += size
        return counts
