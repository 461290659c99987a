"""The store's index with many blobs: look-ups a second, and a collection's time and memory.

    python -m benchmarks.suite.index BLOBS FOLDER

Rows are written through the index itself, without files: images of ten blobs each (a manifest, a
config and eight layers). One image in a hundred has no tag; its blobs have empty files, so
that the collection has something to sweep.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import resources
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor
from docket.pieces import HASH_SIZE, PIECE_LENGTH
from docket.store import Store
from docket.store.index.environment import Index
from docket.store.index.records import BlobRecord, key_of, scoped
from docket.store.index.tables import Transaction
from docket.store.manifests.edges import add_manifest, set_tag

BATCH = 20_000
"""Blobs that are recorded in one transaction, and look-ups that are timed."""

_LAYERS = 8
_BLOBS = _LAYERS + 2
_IMAGES_A_REPOSITORY = 50
_DEAD_EVERY = 100
_LAYER_SIZE = 10_000_000
_SAMPLE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """An index of *blobs*: look-ups a second, and of one collection its seconds and bytes.

    *memory* is how much more anonymous memory the process had at its peak than before.
    """

    blobs: int
    bytes: int
    open_seconds: float
    blob_lookups: float
    layer_lookups: float
    gc_seconds: float
    gc_freed_blobs: int
    memory: int


def measure(location: Path, count: int) -> Row:
    """All about an index of *count* blobs at *location*."""
    _open(location).close()
    # in a process of its own: memory that it used once would hide what the collection takes
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        layers = pool.apply(_fill, (location, count))
    began = time.monotonic()
    with _open(location) as store:
        opened = time.monotonic() - began
        blobs = _rate(lambda: _each(store.blobs.get, layers))
        # a push asks for all layers of an image at once; the "diff_id" is the digest here
        layer_groups = [layers[start : start + _LAYERS] for start in range(0, len(layers), _LAYERS)]
        layer_rate = _rate(lambda: _each(store.layers.find, layer_groups)) * _LAYERS
    with _open(location, pin_seconds=0) as store, _peak_memory() as peak:
        began = time.monotonic()
        report = store.maintenance.gc(grace=0)
        seconds = time.monotonic() - began
    size = sum(path.stat().st_size for path in (location / "index").iterdir())
    return Row(count, size, opened, blobs, layer_rate, seconds, report.blobs, peak())


def _open(location: Path, *, pin_seconds: float = 3600.0) -> Store:
    return Store(location, pin_seconds=pin_seconds)


def _fill(location: Path, count: int) -> list[Digest]:
    """Record *count* blobs; `BATCH` layers among them that stay, to be looked up."""
    rng = random.Random(count)  # noqa: S311  # the same digests each time
    index = Index(location / "index")
    tagged_layers: list[Digest] = []
    for start in range(0, count // _BLOBS, BATCH // _BLOBS):
        numbers = range(start, min(start + BATCH // _BLOBS, count // _BLOBS))
        images = [(number, _image(rng)) for number in numbers]

        def change(txn: Transaction, images: list[tuple[int, _Image]] = images) -> None:
            for number, image in images:
                _record(index, txn, number, image)

        index.update(change)
        for number, image in images:
            if number % _DEAD_EVERY == 0:
                image.make_files(location)
            else:
                tagged_layers += image.layers
    index.close()
    return rng.sample(tagged_layers, min(BATCH, len(tagged_layers)))


@dataclass(frozen=True, slots=True)
class _Image:
    content: bytes
    digest: Digest
    config: Digest
    layers: list[Digest]

    @property
    def blobs(self) -> dict[Digest, int]:
        """Sizes of all its blobs."""
        sizes = dict.fromkeys(self.layers, _LAYER_SIZE)
        return {self.digest: len(self.content), self.config: 1000, **sizes}

    def make_files(self, location: Path) -> None:
        """An empty file for each blob."""
        for digest in self.blobs:
            path = location / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def _image(rng: random.Random) -> _Image:
    config, *layers = (Digest.sha256(rng.randbytes(32).hex()) for _ in range(_BLOBS - 1))
    content = manifest.image_manifest(
        Descriptor(manifest.OCI_CONFIG, config, 1000),
        [Descriptor(f"{manifest.OCI_LAYER}+zstd", layer, _LAYER_SIZE) for layer in layers],
    )
    return _Image(content, Digest.of(content), config, layers)


def _record(index: Index, txn: Transaction, number: int, image: _Image) -> None:
    repository = f"team/app-{number // _IMAGES_A_REPOSITORY}"
    long_ago = 1.0
    pieces = bytes(_LAYER_SIZE // PIECE_LENGTH * HASH_SIZE)
    for digest, size in image.blobs.items():
        layer = (str(digest), size, "zstd") if digest in image.layers else ("", 0, "")
        index.blobs.put(txn, key_of(digest), BlobRecord(size, long_ago, long_ago, *layer))
        index.links.put(txn, scoped(repository, digest), long_ago)
        index.pieces.put(txn, key_of(digest), pieces if layer[0] else pieces[:HASH_SIZE])
        if layer[0]:
            index.layers.add(txn, key_of(digest), key_of(digest))
    parsed = manifest.parse(image.content)
    add_manifest(index, txn, repository, image.digest, parsed, len(image.content))
    if number % _DEAD_EVERY:
        set_tag(index, txn, repository, str(number), image.digest)


def _each(lookup: Callable[..., object], arguments: Sequence[object]) -> int:
    for argument in arguments:
        lookup(argument)
    return len(arguments)


def _rate(work: Callable[[], int]) -> float:
    began = time.monotonic()
    return work() / (time.monotonic() - began)


@contextmanager
def _peak_memory() -> Iterator[Callable[[], int]]:
    """Samples this process's anonymous memory; gives how much it grew at most."""
    before = peak = resources.anonymous_memory()
    over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(_SAMPLE_SECONDS):
            peak = max(peak, resources.anonymous_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: peak - before
    finally:
        over.set()
        watcher.join()


def main() -> None:
    """Measure, and print as JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.suite.index", description=__doc__)
    parser.add_argument("blobs", type=int)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(json.dumps(asdict(measure(options.folder, options.blobs))))


if __name__ == "__main__":
    main()
