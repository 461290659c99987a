"""Handing an image to the container engine, or writing its archive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO, Protocol, cast

from docket.archive import LoadLayer, load_archive
from docket.decompression import PlainReader
from docket.errors import DigestMismatch, SizeMismatch
from docket.oci.digest import READ_SIZE, Digest, new_hash
from docket.oci.manifest import Descriptor
from docket.store import Store
from docket.transfer.output import is_replaced, open_output
from docket.transfer.plan import EngineLayers, held_prefix
from docket.transfer.resolve import ResolvedImage


class LoadingEngine(EngineLayers, Protocol):
    """What a pull needs of the container engine."""

    def load(self, blocks: Iterator[bytes], /) -> object: ...


def load_into_engine(image: ResolvedImage, store: Store, engine: LoadingEngine) -> int:
    """Load what *engine* lacks of the image; how many layers that were.

    Returning means that the engine has the image under its tag.
    """
    leave_out = held_prefix(image, store, engine)
    try:
        engine.load(load_stream(image, store, leave_out=leave_out))
    except SizeMismatch:
        measure_layers(image, store, leave_out=leave_out)
        engine.load(load_stream(image, store, leave_out=leave_out))
    return len(image.layers) - leave_out


def write_archive(image: ResolvedImage, store: Store, target: str) -> None:
    """Write the image's archive to *target*, as ``--output`` names it."""
    try:
        _write(image, store, target)
    except SizeMismatch:
        measure_layers(image, store)
        if not is_replaced(target):
            raise  # half of the archive is out; the next command has the right sizes
        _write(image, store, target)


def _write(image: ResolvedImage, store: Store, target: str) -> None:
    with open_output(target) as file:
        copy_archive(image, store, file)


def copy_archive(image: ResolvedImage, store: Store, file: BinaryIO) -> None:
    """Write the image's archive into *file*. Raises `SizeMismatch`: see `measure_layers`."""
    file.writelines(load_stream(image, store))


def load_stream(image: ResolvedImage, store: Store, *, leave_out: int = 0) -> Iterator[bytes]:
    """The image as an archive that every engine loads, without its first *leave_out* layers.

    Reads the store as it goes; each layer's diff_id is checked before its last byte is given out.
    Raises `SizeMismatch` when a layer's recorded size is wrong: see `measure_layers`.
    """
    layers = [
        LoadLayer(
            diff_id,
            _plain_size(image, store, layer),
            partial(_open_plain, store, layer.digest) if number >= leave_out else None,
        )
        for number, (layer, diff_id) in enumerate(zip(image.layers, image.diff_ids, strict=True))
    ]
    name = image.reference.tagged_name
    return load_archive(image.config, layers, [name] if name else [])


def measure_layers(image: ResolvedImage, store: Store, *, leave_out: int = 0) -> None:
    """Unpack the layers from *leave_out* on, and record their true sizes in the store.

    A registry says what layers unpack to, so that hosts needn't unpack them twice; here it turned
    out to be wrong. Raises `DigestMismatch` for a layer that unpacks to other bytes than the image
    promises.
    """
    layers = list(zip(image.layers, image.diff_ids, strict=True))[leave_out:]
    for layer, promised in dict.fromkeys(layers):
        diff_id, size = _measured(partial(_open_plain, store, layer.digest))
        store.layers.correct(layer.digest, diff_id=diff_id, plain_size=size)
        if diff_id != promised:
            raise DigestMismatch(promised, diff_id)


def _plain_size(image: ResolvedImage, store: Store, layer: Descriptor) -> int:
    """The bytes that a layer unpacks to, as far as that is known."""
    if stored := store.layers.get(layer.digest):
        return stored.plain_size
    if hint := image.unpacked.get(layer.digest):
        return hint.size
    if store.blobs.has(layer.digest):
        return _measured(partial(_open_plain, store, layer.digest))[1]
    return 0  # left out, and nobody knows: engines with layer chains don't look at it


def _open_plain(store: Store, digest: Digest) -> BinaryIO:
    file = store.blobs.open(digest).detach()
    return cast(BinaryIO, PlainReader(file, owns=True))


def _measured(open_plain: Callable[[], BinaryIO]) -> tuple[Digest, int]:
    """The diff_id and size of a plain layer."""
    running, size = new_hash(), 0
    with open_plain() as plain:
        while block := plain.read(READ_SIZE):
            running.update(block)
            size += len(block)
    return Digest.sha256(running.hexdigest()), size
