"""A store on a bad place: the registry says so, with a status and a reason, and lives on."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from docket.oci.digest import Digest
from tests.api.conftest import running
from tests.store.samples import image
from tests.support.disks import tiny_disk

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
