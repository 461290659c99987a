"""Seeding on demand: torrents come when asked for, go when idle, and cost nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from docket.compression import ZSTD
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor
from docket.seeder import Seeder
from docket.store import Store, StoredManifest
from docket.torrent.peer.session_options import SessionOptions
from docket.torrent.peer.swarm import Swarm
from docket.transfer.push import Compression, compressed
from tests.store.samples import blob_path
from tests.support.images import release


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with Store(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    """A session on the loopback address."""
    with Swarm(SessionOptions(listen="127.0.0.1:0")) as session:
        yield session


def stored(store: Store, folder: Path, *, repository: str, seed: str = "layer") -> StoredManifest:
    """A small image in *store*."""
    image = release(f"{repository}:1.0", [(seed, 700_000)])
    layers = []
    for number, plain in enumerate(image.layers):
        path = folder / f"{seed}-{number}"
        source = folder / f"{seed}-{number}.plain"
        source.write_bytes(plain)
        with source.open("rb") as file:
            path.write_bytes(b"".join(compressed(file, len(plain), Compression(ZSTD))))
        blob = store.blobs.adopt(path, Digest.of_file(path))
        path.unlink()
        store.blobs.mount(blob.digest, repository=repository)
        layers.append(Descriptor(f"{manifest.OCI_LAYER}+zstd", blob.digest, blob.size))
    config = store.blobs.put(image.config, repository=repository)
    content = manifest.image_manifest(
        Descriptor(manifest.OCI_CONFIG, config.digest, config.size), layers
    )
    digest = store.manifests.put(repository, content, manifest.parse(content), tags=["1.0"])
    return store.manifests.get(repository, digest)


def test_torrent_comes_when_asked_for_and_goes_when_idle(
    store: Store, swarm: Swarm, tmp_path: Path
) -> None:
    """An image joins the session at the first question for it and leaves without peers."""
    seeder = Seeder(store, swarm, idle_seconds=-1.0)
    stored_manifest = stored(store, tmp_path, repository="app")
    assert swarm.info_hashes() == []
    torrent = seeder.metainfo(stored_manifest, announce="http://a/announce")
    assert swarm.info_hashes() == []
    assert seeder.ensure_seeded(torrent.info_hash)
    assert swarm.info_hashes() == [torrent.info_hash]
    folder = store.location / "swarm" / torrent.name
    links = [folder / file.path for file in torrent.files if file.digest]
    assert all(link.stat().st_nlink == 2 for link in links)
    seeder.release_idle()
    assert swarm.info_hashes() == []
    assert not folder.exists()
    assert store.blobs.has(stored_manifest.digest)


def test_unknown_torrents_are_not_wanted(store: Store, swarm: Swarm) -> None:
    """The tracker serves the registry's own torrents alone."""
    assert not Seeder(store, swarm).ensure_seeded(bytes(20))


def test_making_the_torrent_reads_no_layer(store: Store, swarm: Swarm, tmp_path: Path) -> None:
    """Piece hashes come from the index: without the layers' files the torrent is made all the same.

    The files are moved away, so that any read of one would fail.
    """
    stored_manifest = stored(store, tmp_path, repository="app")
    seeder = Seeder(store, swarm)
    parsed = manifest.parse(stored_manifest.content)
    assert isinstance(parsed, manifest.Manifest)
    for layer in parsed.layers:
        blob_path(store, layer.digest).rename(tmp_path / "moved")
    torrent = seeder.metainfo(stored_manifest, announce="http://a/announce")
    assert {file.digest for file in torrent.files} >= {layer.digest for layer in parsed.layers}


def test_the_same_image_is_the_same_swarm(store: Store, swarm: Swarm, tmp_path: Path) -> None:
    """The info-hash depends on the image alone: not on repository, tag or tracker."""
    first = stored(store, tmp_path, repository="one")
    second = stored(store, tmp_path, repository="two/more")
    here = Seeder(store, swarm).metainfo(first, announce="http://a/announce")
    elsewhere = Seeder(store, swarm).metainfo(second, announce="http://b:1/announce")
    assert here.info_hash == elsewhere.info_hash
    assert here.announce != elsewhere.announce


def test_seeded_blobs_are_pinned(store: Store, swarm: Swarm, tmp_path: Path) -> None:
    """While an image is seeded gc keeps its blobs, though no tag names it any more."""
    seeder = Seeder(store, swarm)
    stored_manifest = stored(store, tmp_path, repository="app")
    seeder.seed(stored_manifest)
    seeder.release_idle()
    store.manifests.delete_tag("app", "1.0")
    assert store.maintenance.gc(grace=0.0).freed == 0
    assert store.blobs.has(stored_manifest.digest)
