"""A registry that lies, or has images that docket can't bring: one line, and nothing is harmed."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from docket.compression import ZSTD
from docket.errors import (
    DigestMismatch,
    InvalidManifest,
    LayerElsewhere,
    SizeMismatch,
    StoreFull,
    summary,
)
from docket.oci import manifest
from docket.oci.descriptor import Descriptor
from docket.oci.digest import Digest
from docket.oci.manifest import Platform
from docket.oci.reference import Reference
from docket.pieces import PieceHasher
from docket.progress import LayerProgress
from docket.remote.client import Client
from docket.torrent.metainfo import image_metainfo
from docket.transfer.load import load_into_engine, write_archive
from docket.transfer.options import TransferOptions
from docket.transfer.plan import held_prefix
from docket.transfer.pull import PullReport, PullRequest, Target, pull
from docket.transfer.resolve import resolve
from tests.store.samples import open_store
from tests.support.http_servers import Handler, serving
from tests.support.images import TinyImage, described, packed, tiny_image

IMAGE = tiny_image("lies", 2, name="app:1.0")
NAME = Reference.parse("app:1.0")
HERE = Platform.of_host()


class Notes:
    """Progress that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def layer(self, progress: LayerProgress) -> None:
        """Nothing to keep."""

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)


class Registry:
    """What a registry answers at each path; tests change it."""

    def __init__(self, image: TinyImage = IMAGE) -> None:
        self.stored = [packed(layer, ZSTD) for layer in image.layers]
        self.config = described(manifest.OCI_CONFIG, image.config)
        self.layers = [described(f"{manifest.OCI_LAYER}+zstd", blob) for blob in self.stored]
        self.bodies: dict[str, bytes] = {}
        for content in (image.config, *self.stored):
            self.add_blob(content)
        self.tag(self.layers)
        self.plain = [(Digest.of(layer), len(layer)) for layer in image.layers]

    def add_blob(self, content: bytes) -> None:
        """Serve *content* as a blob."""
        self.bodies[f"/v2/app/blobs/{Digest.of(content)}"] = content

    def tag(self, layers: Sequence[Descriptor], *, config: Descriptor | None = None) -> None:
        """Tag the image of *layers*."""
        self.manifest = manifest.image_manifest(config or self.config, list(layers))
        for target in ("1.0", Digest.of(self.manifest)):
            self.bodies[f"/v2/app/manifests/{target}"] = self.manifest

    def report_sizes(self, change: Callable[[int], int]) -> None:
        """Serve what the layers unpack to, with other sizes."""
        rows = [
            {
                "diff_id": str(diff_id),
                "digest": str(layer.digest),
                "size": layer.size,
                "plain_size": change(size),
                "media_type": layer.media_type,
            }
            for layer, (diff_id, size) in zip(self.layers, self.plain, strict=True)
        ]
        path = f"/v2/app/_docket/layers/{Digest.of(self.manifest)}"
        self.bodies[path] = json.dumps({"layers": rows}).encode()

    def respond(self, handler: Handler) -> None:
        """Answer a request."""
        body = self.bodies.get(handler.path.partition("?")[0])
        if body is None:
            handler.respond(404)
            return
        start, end = 0, len(body)
        if wanted := handler.headers.get("Range"):
            start, end = (int(part) for part in wanted.removeprefix("bytes=").split("-"))
            handler.respond(206, body[start : end + 1])
        else:
            handler.respond(200, body, {"Content-Type": manifest.OCI_MANIFEST})


@contextmanager
def client_of(registry: Registry) -> Iterator[Client]:
    """A client of *registry*."""
    with serving(registry.respond) as server, Client(server.url) as client:
        yield client


def pulled(
    client: Client,
    folder: Path,
    output: str = "",
    *,
    notes: Notes | None = None,
    swarm: bool = False,
) -> PullReport:
    """Pull the image into the store at *place*, or to *output*."""
    target = Target.ARCHIVE if output else Target.STORE
    options = TransferOptions(use_swarm=swarm, peer_timeout=0.1)
    request = PullRequest(NAME, HERE, target, output, options=options)
    return pull(client, lambda: open_store(folder), request, progress=notes or Notes())


def layers_of(archive: bytes) -> list[bytes]:
    """The layers in an archive of `IMAGE`."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = [tar.extractfile(digest.layout_path) for digest in IMAGE.diff_ids]
        return [file.read() for file in files if file]


SIZES: list[Callable[[int], int]] = [
    lambda size: size + 1,
    lambda size: size - 1,
    lambda _size: 0,
    lambda _size: 1 << 40,
    lambda size: size + 512,
]


@pytest.mark.parametrize("change", SIZES)
def test_a_wrong_plain_size_is_measured_and_corrected(
    tmp_path: Path, change: Callable[[int], int]
) -> None:
    """It is a hint: the archive is right all the same, and the store has the right size then."""
    registry = Registry()
    registry.report_sizes(change)
    output = tmp_path / "app.tar"
    with client_of(registry) as client:
        pulled(client, tmp_path / "store")
        pulled(client, tmp_path / "store", str(output))
        assert layers_of(output.read_bytes()) == list(IMAGE.layers)
        with open_store(tmp_path / "store") as store:
            sizes = [store.layers.get(layer.digest) for layer in registry.layers]
            assert [row.plain_size for row in sizes if row] == [
                len(layer) for layer in IMAGE.layers
            ]
            assert set(store.layers.find(IMAGE.diff_ids)) == set(IMAGE.diff_ids)
        pulled(client, tmp_path / "fresh", str(output))
        assert layers_of(output.read_bytes()) == list(IMAGE.layers)


class CountingEngine:
    """An engine that takes archives and has no layers."""

    def __init__(self) -> None:
        self.loaded: list[Mapping[Digest, Any]] = []
        self.archives: list[bytes] = []

    def held_prefix(
        self, _diff_ids: Sequence[Digest], loaded: Callable[[], Mapping[Digest, Any]]
    ) -> int:
        """None; keeps what docket says that it loaded."""
        self.loaded.append(loaded())
        return 0

    def load(self, blocks: Iterator[bytes]) -> None:
        """Take a whole archive."""
        self.archives.append(b"".join(blocks))


def test_an_engine_gets_the_right_archive_the_second_time(tmp_path: Path) -> None:
    """The first load broke off, so the engine has nothing of it."""
    registry = Registry()
    registry.report_sizes(lambda size: size + 7)
    engine = CountingEngine()
    with client_of(registry) as client:
        pulled(client, tmp_path)
        with open_store(tmp_path) as store:
            assert load_into_engine(resolve(client, NAME, HERE), store, engine) == 2
    assert len(engine.archives) == 1
    assert layers_of(engine.archives[0]) == list(IMAGE.layers)


def test_a_layer_that_unpacks_to_other_bytes_is_no_wrong_size(tmp_path: Path) -> None:
    """The image itself is wrong then: no archive, and no endless repetition."""
    registry = Registry()
    other_layer = packed(b"other bytes" * 1000, ZSTD)
    registry.add_blob(other_layer)
    registry.tag([registry.layers[0], described(registry.layers[1].media_type, other_layer)])
    with client_of(registry) as client, pytest.raises(DigestMismatch):
        pulled(client, tmp_path / "store", str(tmp_path / "app.tar"))
    assert not (tmp_path / "app.tar").exists()


def _torrent(registry: Registry, blobs: Sequence[tuple[Digest, int]]) -> bytes:
    content = registry.manifest
    hashes = {Digest.of(content): content, Digest.of(IMAGE.config): IMAGE.config}
    pieces = {}
    for digest, size in blobs:
        hasher = PieceHasher()
        hasher.update(hashes.get(digest, bytes(min(size, 1 << 20))))
        pieces[digest] = hasher.finish()
    made = image_metainfo(
        Digest.of(content),
        media_type=manifest.OCI_MANIFEST,
        size=len(content),
        blobs=blobs,
        pieces={**pieces, Digest.of(content): bytes(20)},
        announce="http://127.0.0.1:9/announce",
    )
    return made.content


@pytest.mark.parametrize("kind", ["a file more", "a layer less", "a longer layer"])
def test_a_torrent_of_other_files_is_not_used(tmp_path: Path, kind: str) -> None:
    """Only what the manifest promises gets onto the disk; layers come over HTTP."""
    registry = Registry()
    blobs = [(blob.digest, blob.size) for blob in (registry.config, *registry.layers)]
    if kind == "a file more":
        blobs.append((Digest.of(b"more"), 1 << 20))
    elif kind == "a layer less":
        blobs.pop()
    else:
        blobs[-1] = (blobs[-1][0], 1 << 20)
    path = f"/v2/app/_docket/torrent/{Digest.of(registry.manifest)}"
    registry.bodies[path] = _torrent(registry, blobs)
    notes = Notes()
    with client_of(registry) as client:
        report = pulled(client, tmp_path, notes=notes, swarm=True)
    assert {layer.source for layer in report.layers} == {"http"}
    assert ["other files" in note for note in notes.notes] == [True]


@pytest.mark.parametrize("size", [1 << 50, 1 << 61])
def test_an_image_larger_than_the_disk(tmp_path: Path, size: int) -> None:
    """It is refused before a byte of a layer is fetched, with the figures."""
    registry = Registry()
    registry.tag([*registry.layers[:1], replace(registry.layers[1], size=size)])
    with client_of(registry) as client, pytest.raises(StoreFull) as caught:
        pulled(client, tmp_path)
    assert caught.value.needed > size
    assert 0 < caught.value.free < size
    assert not any(path.stat().st_size > 1 << 20 for path in tmp_path.rglob("blobs/**/*"))


FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"


@pytest.mark.parametrize("media_type", [FOREIGN, NONDISTRIBUTABLE, manifest.OCI_LAYER + "+zstd"])
@pytest.mark.parametrize("urls", [(), ("https://mcr.example/layer",)])
def test_a_layer_that_its_registry_needs_not_have(
    tmp_path: Path, media_type: str, urls: tuple[str, ...]
) -> None:
    """Where the registry has it, it is a layer like others; else one line says where it is."""
    registry = Registry()
    foreign = replace(registry.layers[0], media_type=media_type, urls=urls)
    registry.tag([foreign, registry.layers[1]])
    with client_of(registry) as client:
        assert len(pulled(client, tmp_path / "a").layers) == 2
        if media_type.startswith(manifest.OCI_LAYER) and not urls:
            return
        del registry.bodies[f"/v2/app/blobs/{foreign.digest}"]
        with pytest.raises(LayerElsewhere) as caught:
            pulled(client, tmp_path / "b")
    assert str(foreign.digest) in summary(caught.value)
    assert all(url in summary(caught.value) for url in urls)


def test_an_image_without_layers(tmp_path: Path) -> None:
    """It is pulled, and its archive has its config."""
    image = tiny_image("empty", 0, name="app:1.0")
    output = tmp_path / "app.tar"
    with client_of(Registry(image)) as client:
        report = pulled(client, tmp_path / "store", str(output))
    assert report.layers == ()
    with tarfile.open(output) as tar:
        file = tar.extractfile(Digest.of(image.config).layout_path)
        assert file
        assert file.read() == image.config


def test_an_artifact_is_no_image(tmp_path: Path) -> None:
    """A chart, a signature, a bill of materials: the line names its type."""
    registry = Registry()
    empty = b"{}"
    registry.add_blob(empty)
    chart = described("application/vnd.cncf.helm.config.v1+json", empty)
    registry.tag(registry.layers, config=chart)
    with client_of(registry) as client, pytest.raises(InvalidManifest) as caught:
        pulled(client, tmp_path)
    assert "helm" in str(caught.value)


def test_a_wrong_size_on_standard_output(tmp_path: Path) -> None:
    """Half of the archive is out, so it is an error; the next one is right."""
    registry = Registry()
    registry.report_sizes(lambda size: size + 1)
    with client_of(registry) as client:
        pulled(client, tmp_path)
        output = tmp_path / "out.tar"
        image = resolve(client, NAME, HERE)
        with open_store(tmp_path) as store:
            with pytest.raises(SizeMismatch):
                write_archive(image, store, "-")
            write_archive(image, store, str(output))
    assert layers_of(output.read_bytes()) == list(IMAGE.layers)


def test_a_damaged_image_beside_the_one_that_is_pulled(tmp_path: Path) -> None:
    """What an engine has is found by the store's sound images alone; the pull goes on."""
    registry = Registry()
    with client_of(registry) as client:
        pulled(client, tmp_path)
        with open_store(tmp_path) as store:
            engine = CountingEngine()
            held_prefix(resolve(client, NAME, HERE), store, engine)
            path = next(tmp_path.rglob(registry.config.digest.hex))
            path.chmod(0o644)
            path.write_bytes(bytes(registry.config.size))
            held_prefix(resolve(client, NAME, HERE), store, engine)
    assert [len(images) for images in engine.loaded] == [1, 0]
