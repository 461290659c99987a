"""A push whose image is still being read: layers that the registry lacks go up meanwhile."""

from __future__ import annotations

import io
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from docket.archive import read
from docket.errors import InvalidArchive
from docket.oci.digest import Digest
from docket.oci.reference import Reference
from docket.progress import DONE, UPLOADING, LayerProgress
from docket.remote.client import Client
from docket.transfer.push import Compression, Push
from tests.support.images import TinyImage, release

SECONDS = 30.0
IMAGE = Reference.parse("app:1.0")


class Watched:
    """Progress that records when the first layer is uploaded, and all uploads that began."""

    def __init__(self) -> None:
        self.uploaded = Event()
        self.begun: set[str] = set()

    def layer(self, progress: LayerProgress) -> None:
        if progress.state == UPLOADING:
            self.begun.add(progress.name)
        if progress.state == DONE:
            self.uploaded.set()

    def note(self, text: str) -> None:
        raise AssertionError(text)


class Paused(io.RawIOBase):
    """An archive whose bytes from *pause_at* on come only after *opened*; then it may break off."""

    def __init__(
        self, content: bytes, pause_at: int, opened: Event, *, breaks: bool = False
    ) -> None:
        self._content = io.BytesIO(content[:pause_at] if breaks else content)
        self._pause_at = pause_at
        self._opened = opened

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        offset = self._content.tell()
        if offset < self._pause_at:
            return self._content.readinto(memoryview(target)[: self._pause_at - offset])
        assert self._opened.wait(SECONDS), "no upload while the archive is read"
        return self._content.readinto(target)


def archived(image: TinyImage, tmp_path: Path) -> tuple[bytes, int]:
    """The image's archive, and where in it the first layer has ended, before anything else."""
    content = image.archive(tmp_path / "image.tar").read_bytes()
    first = image.layers[0]
    return content, content.index(first) + len(first) + 1024


def pushing(url: str, image: TinyImage, source: Paused, progress: Watched, spool: Path) -> Digest:
    """Push *image* from *source*, with its layers known before, as those of an engine's are."""
    with Client(url) as client, Push(client, IMAGE, Compression(), progress) as push:
        push.expect(map(Digest.of, image.layers))
        archived = read(source, spool=spool, on_layer=push.offer)  # type: ignore[arg-type]
        return push.finish(config=archived.config, layers=archived.layers).digest


def test_layers_go_up_while_the_archive_is_read(registry_url: str, tmp_path: Path) -> None:
    """The archive's second half comes only after the first layer is in the registry."""
    image = release("app:1.0", [("first", 300_000), ("second", 300_000)])
    progress = Watched()
    content, pause_at = archived(image, tmp_path)
    digest = pushing(
        registry_url, image, Paused(content, pause_at, progress.uploaded), progress, tmp_path
    )
    with Client(registry_url) as client:
        assert client.manifest(IMAGE).digest == digest
        layers = client.missing(IMAGE.repository, list(map(Digest.of, image.layers)))
    assert len(layers) == 2
    assert len(progress.begun) == 2


def test_only_expected_layers_go_up(registry_url: str, tmp_path: Path) -> None:
    """A file that is no layer of the image, as far as is known, waits until the end."""
    image = release("app:1.0", [("first", 300_000), ("second", 300_000)])
    progress = Watched()
    spool = tmp_path / "spool"
    spool.mkdir()
    with Client(registry_url) as client, Push(client, IMAGE, Compression(), progress) as push:
        push.expect([Digest.of(image.layers[1])])
        archived = read(image.archive(tmp_path / "image.tar"), spool=spool, on_layer=push.offer)
    assert progress.begun <= {Digest.of(image.layers[1]).short}
    assert len(archived.layers) == 2


def test_an_archive_that_breaks_off_names_no_image(registry_url: str, tmp_path: Path) -> None:
    """What went up meanwhile is nobody's: there is no manifest, and gc takes the layer."""
    image = release("app:1.0", [("first", 300_000), ("second", 300_000)])
    progress = Watched()
    content, pause_at = archived(image, tmp_path)
    source = Paused(content, pause_at, progress.uploaded, breaks=True)
    with pytest.raises(InvalidArchive):
        pushing(registry_url, image, source, progress, tmp_path)
    with Client(registry_url) as client:
        assert client.images() == []
