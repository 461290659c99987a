"""What finer methods than whole layers would bring to a host: bounds, without any protocol.

A host has gone through the steps before; what it gets is compressed with zstd -3.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import fastcdc
import zstandard

from docket import archive
from docket.archive.read import Layer
from tests.support.debian import require
from tests.support.image_family.steps import STEPS

FILES = "changed files"
CHUNKS = "chunks of 64 KiB"
PATCH = "zstd --patch-from"

_CHUNK = 64 << 10
_LEVEL = 3
_WINDOW = 30  # patches reach back 1 GiB


@dataclass(frozen=True, slots=True)
class Bound:
    """The least that *method* would bring to a host in a step, in bytes."""

    method: str
    step: str
    to_host: int


def measure(images: Mapping[str, Path], folder: Path) -> list[Bound]:
    """All methods along the steps."""
    require("zstd", "zstd")
    bounds = []
    before: Sequence[Layer] = ()
    host_layers: set[object] = set()
    chunks: set[str] = set()
    for step in STEPS:
        spool = folder / step.image.replace(":", "-")
        spool.mkdir()
        layers = archive.read(images[step.image], spool=spool, name=step.image).layers
        sizes = dict.fromkeys((FILES, CHUNKS, PATCH), 0)
        for number, layer in enumerate(layers):
            if layer.diff_id in host_layers:
                continue
            old = before[number].path if number < len(before) else None
            sizes[FILES] += _files(old, layer.path)
            sizes[CHUNKS] += _chunks(layer.path, chunks)
            sizes[PATCH] += _patch(old, layer.path)
        host_layers |= {layer.diff_id for layer in layers}
        bounds += [Bound(method, step.name, size) for method, size in sizes.items()]
        before = layers
    shutil.rmtree(folder)
    return bounds


def _files(old: Path | None, new: Path) -> int:
    """The members of *new* that *old* has otherwise or not at all, headers too, in one stream."""
    host_content = set(_members(old)) if old else set()
    packer = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
    size = 0
    with new.open("rb") as file:
        for name, mark, start, end in _members_of(new):
            if (name, mark) not in host_content:
                file.seek(start)
                size += len(packer.compress(file.read(end - start)))
    return size + len(packer.flush())


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    for name, mark, _, _ in _members_of(path):
        yield name, mark


def _members_of(path: Path) -> Iterator[tuple[str, bytes, int, int]]:
    """Name, hash of header and content, and where both lie, of every member of a tar."""
    with tarfile.open(path) as tar, path.open("rb") as file:
        for member in tar:
            end = member.offset_data + (member.size + 511) // 512 * 512 * member.isreg()
            file.seek(member.offset)
            content = file.read(end - member.offset)
            yield member.name, hashlib.sha256(content).digest(), member.offset, end


def _chunks(path: Path, host_content: set[str]) -> int:
    """The chunks (FastCDC) of a layer that aren't in *host_content*, each by itself; adds them."""
    packer = zstandard.ZstdCompressor(level=_LEVEL)
    sizes = {"min_size": _CHUNK // 4, "avg_size": _CHUNK, "max_size": _CHUNK * 4}
    size = 0
    for chunk in fastcdc.fastcdc(str(path), **sizes, fat=True, hf=hashlib.sha256):
        if chunk.hash not in host_content:
            host_content.add(chunk.hash)
            size += len(packer.compress(chunk.data))
    return size


def _patch(old: Path | None, new: Path) -> int:
    """A patch of the layer that was at the same place in the image before, or all of *new*."""
    with tempfile.NamedTemporaryFile() as target:
        base = [f"--patch-from={old}"] if old else []
        quiet = ["zstd", "--quiet", "--force", f"-{_LEVEL}", f"--long={_WINDOW}"]
        subprocess.run([*quiet, *base, str(new), "-o", target.name], check=True)
        return Path(target.name).stat().st_size
