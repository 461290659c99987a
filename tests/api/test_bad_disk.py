"""A store on a bad place: the registry says so, with a status and a reason, and lives on."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from docket.oci.digest import Digest
from tests.api.conftest import running
from tests.store.samples import image
from tests.support.disks import btrfs_disk, ext4_disk, need_loop_devices, tiny_disk

ONE = image("layer")


def fill(path: Path) -> None:
    """Write to *path* until the disk has no space left."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        for size in (1 << 20, 1):
            with contextlib.suppress(OSError):
                while os.write(descriptor, bytes(size)):
                    pass
    finally:
        os.close(descriptor)


def test_a_full_disk() -> None:
    """/readyz is 503 with the reason, writes are 507, reads work; all is well with space again."""
    with (
        tiny_disk(24) as disk,
        running(disk / "store", log_has="no space left") as registry,
    ):
        repo = registry.repository("app")
        repo.push(ONE, "v1")
        fill(disk / "filler")
        answer = registry.ask("GET", "/readyz")
        assert answer.refused(503, "UNAVAILABLE")
        assert "space" in answer.json["errors"][0]["message"]
        blob = os.urandom(1 << 20)
        upload = repo.ask("POST", "blobs/uploads/", digest=Digest.of(blob), body=blob)
        assert upload.refused(507, "TOOMANYREQUESTS")
        assert repo.ask("GET", "manifests/v1").body == ONE.content
        assert repo.ask("GET", f"blobs/{Digest.of(ONE.config)}").body == ONE.config
        (disk / "filler").unlink()
        assert repo.upload(blob) == Digest.of(blob)


def test_bad_sectors() -> None:
    """A blob that the disk can't read, small or large, is 503 with the reason; others are 200."""
    small, large = (os.urandom(size) for size in (20_000, 2 << 20))
    with btrfs_disk() as disk:
        location = disk.folder / "store"
        with running(location, log_has="") as registry:
            repo = registry.repository("app")
            repo.push(ONE, "v1")
            for blob in (small, large):
                repo.upload(blob)
        for blob in (small, large):
            hexadecimal = Digest.of(blob).hex
            disk.lose(location / "blobs" / "sha256" / hexadecimal[:2] / hexadecimal)
        with running(location, log_has="Input/output error") as registry:
            repo = registry.repository("app")
            for blob in (small, large):
                answer = repo.ask("GET", f"blobs/{Digest.of(blob)}")
                assert answer.refused(503, "UNAVAILABLE")
                assert "Input/output error" in answer.json["errors"][0]["message"]
            assert repo.ask("GET", "manifests/v1").body == ONE.content


def test_a_disk_becomes_read_only() -> None:
    """Writes and /readyz are 503 with the reason, reads work, and the registry still ends well."""
    need_loop_devices("mkfs.ext4", "findmnt")
    with (
        ext4_disk() as disk,
        disk.mounted() as folder,
        running(folder / "store", log_has="Read-only file system") as registry,
    ):
        repo = registry.repository("app")
        repo.push(ONE, "v1")
        disk.become_read_only()
        for answer in (
            registry.ask("GET", "/readyz"),
            repo.ask("POST", "blobs/uploads/"),
            repo.ask("DELETE", "manifests/v1"),
        ):
            assert answer.refused(503, "UNAVAILABLE")
            assert "Read-only file system" in answer.json["errors"][0]["message"]
        assert repo.ask("GET", "manifests/v1").body == ONE.content
        assert repo.ask("GET", f"blobs/{Digest.of(ONE.config)}").body == ONE.config
