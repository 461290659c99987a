"""Images of random bytes with their torrents, laid out as the store would lay them out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libtorrent as lt

from docket.oci.digest import Digest
from docket.oci.manifest import OCI_MANIFEST
from docket.pieces import PieceHasher
from docket.torrent.metainfo import Metainfo, image_metainfo, layout_files


@dataclass(frozen=True, slots=True)
class Sample:
    """An image: its manifest, its config and its layers (of no meaning, but of a size)."""

    manifest: bytes
    blobs: tuple[bytes, ...]

    @property
    def all_blobs(self) -> tuple[bytes, ...]:
        """The manifest too."""
        return (self.manifest, *self.blobs)

    @property
    def digests(self) -> list[Digest]:
        """Of all blobs, that of the manifest first."""
        return [Digest.of(blob) for blob in self.all_blobs]

    def metainfo(self, announce: str = "") -> Metainfo:
        """Its torrent."""
        return image_metainfo(
            Digest.of(self.manifest),
            media_type=OCI_MANIFEST,
            size=len(self.manifest),
            blobs=[(Digest.of(blob), len(blob)) for blob in self.blobs],
            pieces={Digest.of(blob): piece_hashes(blob) for blob in self.all_blobs},
            announce=announce,
        )

    def lay_out(self, root: Path, *, without: Collection[Digest] = ()) -> Path:
        """The torrent's folder below *root*, its blobs read-only as those of the store are."""
        folder = root / Digest.of(self.manifest).hex
        (folder / "blobs" / "sha256").mkdir(parents=True)
        small = layout_files(
            Digest.of(self.manifest), media_type=OCI_MANIFEST, size=len(self.manifest)
        )
        for name, content in small.items():
            (folder / name).write_bytes(content)
        for blob in self.all_blobs:
            digest = Digest.of(blob)
            if digest not in without:
                path = folder / digest.layout_path
                path.write_bytes(blob)
                path.chmod(0o444)
        return folder


def sample(layer_sizes: Sequence[int]) -> Sample:
    """An image with layers of these sizes in bytes."""
    return Sample(os.urandom(700), (os.urandom(1500), *map(os.urandom, layer_sizes)))


def piece_hashes(blob: bytes) -> bytes:
    """The SHA-1s of the pieces of *blob*."""
    hasher = PieceHasher()
    hasher.update(blob)
    return hasher.finish()


def decoded(content: bytes) -> Any:
    """What is bencoded in *content*; its keys and texts are bytes."""
    return lt.bdecode(content)


def until(happened: Callable[[], bool]) -> None:
    """Look again and again; fails when it takes half a minute."""
    deadline = time.monotonic() + 30.0
    while not happened():
        assert time.monotonic() < deadline
        os.sched_yield()
