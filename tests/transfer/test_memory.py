"""Memory stays flat, however large the image is."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

from docket.oci.digest import Digest, new_hash
from docket.oci.manifest import dump
from tests.support.commands import DOCKET, Commands

LIMIT = 150_000_000
SIZE = 2_000_000_000
BLOCK = 1 << 20


def sparse_archive(path: Path) -> None:
    """A docker archive of 2 GB: one layer, mostly zeros, with some noise that doesn't compress."""
    noise = os.urandom(BLOCK)
    layer = path.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar:
        member = tarfile.TarInfo("data")
        member.size = SIZE
        tar.addfile(member, Blocks(noise, SIZE))
    running = new_hash()
    with layer.open("rb") as file:
        while block := file.read(BLOCK):
            running.update(block)
    digest = Digest.sha256(running.hexdigest())
    config = dump(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [str(digest)]},
        }
    )
    listed = [{"Config": "config.json", "RepoTags": ["big:1.0"], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        tar.add(layer, "layer.tar")
        for name, content in (("config.json", config), ("manifest.json", dump(listed))):
            part = path.with_suffix(f".{name}")
            part.write_bytes(content)
            tar.add(part, name)
    layer.unlink()


class Blocks:
    """A file of *left* bytes: a block of noise in every ten, zeros else."""

    def __init__(self, noise: bytes, left: int) -> None:
        self._noise = noise
        self._left = left
        self._count = 0

    def read(self, size: int = BLOCK, /) -> bytes:
        """The next *size* bytes."""
        size = min(size, self._left)
        self._left -= size
        self._count += 1
        return self._noise[:size] if self._count % 640 < 64 else bytes(size)


def test_pushing_a_2_gb_archive_takes_under_150_mb(registry_url: str, tmp_path: Path) -> None:
    """docket push of a 2 GB archive: peak resident memory of its process ≤ 150 MB."""
    archive = tmp_path / "big.tar"
    sparse_archive(archive)
    host = Commands(registry_url, tmp_path / "a")
    watched = (
        "import resource, subprocess, sys;"
        "done = subprocess.run(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024);"
        "sys.exit(done.returncode)"
    )
    argv = [*DOCKET, *host.options, "-q", "push", "big:1.0", "--archive", str(archive)]
    done = subprocess.run([sys.executable, "-c", watched, *argv], capture_output=True, check=True)
    assert int(done.stdout.split()[-1]) <= LIMIT
