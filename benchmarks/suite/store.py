"""The store: how fast it takes layers in beside the limit of this machine, what layers save in
space, and how long the torrent of an image takes whose layers are known.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import zstandard

from benchmarks.summary import Summary
from docket.oci.digest import READ_SIZE, Digest
from docket.oci.manifest import Manifest, parse
from docket.seeder import Seeder
from docket.store import Store
from docket.torrent.peer.swarm import Swarm
from tests.support import servers
from tests.support.commands import Commands
from tests.support.image_family.steps import FIRST

TOGETHER = 3
"""Layers that a push uploads at the same time."""

_REPOSITORY = "bench/blob"


@dataclass(frozen=True, slots=True)
class Ingest:
    """Layers taken in, *streams* at a time: stored bytes a second, as are the limits.

    *parts* are one processor's rates: the SHA-256 of the blob, the SHA-1 of its pieces,
    decompression with the SHA-256 of what comes out; and the disk's, written and synced.
    *limit* is the least of the disk's, and what all of the processors together can do.
    """

    streams: int
    rate: Summary
    limit: Summary
    ratio: Summary
    parts: dict[str, Summary]


@dataclass(frozen=True, slots=True)
class Family:
    """All images in one store, in bytes: as archives, as distinct plain layers, as stored."""

    images: int
    archives: int
    plain: int
    stored: int
    torrent_ms: Summary
    torrent_pieces: int


def measure(images: Mapping[str, Path], folder: Path, *, runs: int) -> tuple[list[Ingest], Family]:
    """Ingest of the layers of `FIRST`, one and several at a time; then all of the family."""
    location = folder / "registry"
    pushed = _push_all(images, location, folder)
    family, blobs = _family(images, pushed, location, runs=runs)
    copies = [folder / f"blob-{number}" for number in range(len(blobs))]
    for blob, path in zip(blobs, copies, strict=True):
        shutil.copyfile(blob, path)
    shutil.rmtree(location)
    rows = [_ingest(copies, folder, streams=streams, runs=runs) for streams in (1, TOGETHER)]
    return rows, family


def _push_all(images: Mapping[str, Path], location: Path, folder: Path) -> list[dict[str, int]]:
    """For each image the layers that were new: plain and stored size."""
    new = []
    with servers.docket(location) as server:
        builder = Commands(server.url, folder / "builder")
        for image, archive in images.items():
            layers = builder("push", image, "--archive", archive)["layers"]
            added = [layer for layer in layers if layer["source"] == "uploaded"]
            new.append(
                {name: sum(layer[name] for layer in added) for name in ("plain_size", "size")}
            )
    return new


def _family(
    images: Mapping[str, Path],
    pushed: Sequence[Mapping[str, int]],
    location: Path,
    *,
    runs: int,
) -> tuple[Family, list[Path]]:
    """Sizes of the family, the time of a torrent, and where the layers of `FIRST` lie."""
    repository, _, tag = FIRST.partition(":")
    with _opened(location) as store:
        stored_manifest = store.manifests.get(repository, tag)
        parsed = parse(stored_manifest.content, content_type=stored_manifest.media_type)
        assert isinstance(parsed, Manifest)
        took = []
        with Swarm() as swarm:
            for _ in range(runs):
                # a new one each time: it remembers the torrents that it made
                seeder = Seeder(store, swarm)
                began = time.monotonic()
                torrent = seeder.metainfo(stored_manifest, announce="http://registry/announce")
                took.append((time.monotonic() - began) * 1000)
        blobs = [_file(location, layer.digest) for layer in parsed.layers]
    family = Family(
        images=len(images),
        archives=sum(path.stat().st_size for path in images.values()),
        plain=sum(layer["plain_size"] for layer in pushed),
        stored=sum(layer["size"] for layer in pushed),
        torrent_ms=Summary.of(took),
        torrent_pieces=torrent.piece_count,
    )
    return family, blobs


def _file(location: Path, digest: Digest) -> Path:
    return location / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex


def _ingest(blobs: Sequence[Path], folder: Path, *, streams: int, runs: int) -> Ingest:
    size = sum(path.stat().st_size for path in blobs)
    rates: list[float] = []
    limits: list[float] = []
    parts: dict[str, list[float]] = {name: [] for name in (*_PARTS, "disk")}
    for _ in range(runs):
        seconds = {name: _seconds(work, blobs) for name, work in _PARTS.items()}
        seconds["disk"] = _seconds(partial(_write, folder / "written"), blobs)
        for name, value in seconds.items():
            parts[name].append(size / value)
        rates.append(size / _take_in(blobs, folder / "store", streams))
        limits.append(size / _least(seconds, streams))
    return Ingest(
        streams,
        Summary.of(rates),
        Summary.of(limits),
        Summary.of(rate / limit for rate, limit in zip(rates, limits, strict=True)),
        {name: Summary.of(values) for name, values in parts.items()},
    )


def _least(seconds: Mapping[str, float], streams: int) -> float:
    """The least time for it all: processors share the work, but each part of a layer is one's."""
    work = [seconds[name] for name in _PARTS]
    slowest_part = max(work) if streams == 1 else 0.0
    return max(sum(work) / (os.cpu_count() or 1), slowest_part, seconds["disk"])


def _take_in(blobs: Sequence[Path], location: Path, streams: int) -> float:
    """Seconds to upload all *blobs* into a new store, in this process."""
    digests = [Digest.of_file(path) for path in blobs]
    os.sync()
    with _opened(location) as store, ThreadPoolExecutor(streams) as pool:
        began = time.monotonic()
        for done in [
            pool.submit(_upload, store, *layer) for layer in zip(blobs, digests, strict=True)
        ]:
            done.result()
        took = time.monotonic() - began
    shutil.rmtree(location)
    return took


def _upload(store: Store, path: Path, digest: Digest) -> None:
    upload_id = store.uploads.begin(_REPOSITORY)
    with store.uploads.open(_REPOSITORY, upload_id) as upload:
        for block in _blocks(path):
            upload.write(block)
        store.uploads.finish(_REPOSITORY, upload, digest)


def _opened(location: Path) -> Store:
    return Store(location)


def _sha256(path: Path) -> None:
    running = hashlib.sha256()
    for block in _blocks(path):
        running.update(block)


def _sha1(path: Path) -> None:
    running = hashlib.sha1()
    for block in _blocks(path):
        running.update(block)


def _unpack(path: Path) -> None:
    running = hashlib.sha256()
    with path.open("rb") as file:
        for block in zstandard.ZstdDecompressor().read_to_iter(file, write_size=READ_SIZE):
            running.update(block)


_PARTS: dict[str, Callable[[Path], None]] = {
    "sha256": _sha256,
    "sha1": _sha1,
    "unpack": _unpack,
}


def _write(target: Path, path: Path) -> None:
    with target.open("wb") as file:
        for block in _blocks(path):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    target.unlink()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while block := file.read(READ_SIZE):
            yield block


def _seconds(work: Callable[[Path], None], blobs: Sequence[Path]) -> float:
    os.sync()
    began = time.monotonic()
    for path in blobs:
        work(path)
    return time.monotonic() - began
