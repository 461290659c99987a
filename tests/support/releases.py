"""Archives of small images made in code; the same seeds give the same bytes."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from docket.archive import LoadLayer, load_archive
from docket.oci.digest import Digest
from docket.oci.manifest import dump


@dataclass(frozen=True, slots=True)
class Release:
    """An image: its config, the plain tars of its layers, and its name."""

    name: str
    config: bytes
    layers: tuple[bytes, ...]

    def archive(self, path: Path) -> Path:
        """Write the archive that ``docker save`` would."""
        layers = [
            LoadLayer(Digest.of(one), len(one), partial(io.BytesIO, one)) for one in self.layers
        ]
        with path.open("wb") as file:
            file.writelines(load_archive(self.config, layers, [self.name]))
        return path


def release(name: str, layers: Sequence[tuple[str, int]]) -> Release:
    """An image of layers given by seed and size in bytes; half of each can be compressed."""
    tars = tuple(layer_tar(seed, size) for seed, size in layers)
    config = dump(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(one)) for one in tars]},
        }
    )
    return Release(name, config, tars)


def layer_tar(seed: str, size: int) -> bytes:
    """A tar with one file of *size* bytes."""
    noise = random.Random(seed).randbytes(size // 2)
    content = noise + bytes(size - len(noise))
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo(f"srv/{seed}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return target.getvalue()
