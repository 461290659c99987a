"""What rows say is needed, beside the edges that gc goes by: a damaged edge costs no image."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import suppress

from docket.errors import IndexDamaged
from docket.store.index.environment import Index
from docket.store.index.records import scoped, unscoped
from docket.store.index.tables import Transaction


class Needed:
    """Keys that tags, manifests and `children` need, as hashes: about 60 bytes of memory each.

    Edges of `parents` have no checksum, and one whose key is damaged can't be found. All that it
    says follows from these rows too, read once from beginning to end.
    """

    def __init__(self, index: Index, dead: Container[bytes]) -> None:
        """*dead* are keys of tags and manifests that need nothing any more."""
        with index.read() as txn:
            self._hashes = {hash(key) for key in _needed_keys(index, txn, dead)}
        self.spared: list[bytes] = []

    def spares(self, key: bytes) -> bool:
        """Whether *key* is needed, though no edge has shown it: that is noted in *spared*.

        *key* is a digest, or that of a manifest or link: `scoped`.
        """
        is_needed = hash(key) in self._hashes
        if is_needed:
            self.spared.append(key)
        return is_needed


def _needed_keys(index: Index, txn: Transaction, dead: Container[bytes]) -> Iterator[bytes]:
    for key, tag in index.tags.scan(txn):
        if key not in dead:
            yield scoped(unscoped(key)[0], tag.digest)
    for key in index.manifests.keys(txn):
        if key not in dead:
            with suppress(IndexDamaged):
                yield unscoped(key)[1].encode()
    for parent, child in index.children.pairs(txn):
        if parent not in dead and index.manifests.has(txn, parent):
            yield child
            yield parent.partition(b"\0")[0] + b"\0" + child
