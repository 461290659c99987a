"""What may be asked without reading a layer: the torrent of an image whose layers are known."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from docket.errors import BlobUnknown
from docket.oci.digest import Digest
from docket.seeder import Seeder
from docket.store import Store
from docket.torrent.peer.session_options import SessionOptions
from docket.torrent.peer.swarm import Swarm
from tests.store.samples import image, open_store, push

ONE = image("base", "one", size=600_000)


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    """A swarm of the loopback address."""
    with closing(Swarm(SessionOptions(listen="127.0.0.1:0"))) as opened:
        yield opened


def test_a_torrent_reads_no_layer(store: Store, swarm: Swarm) -> None:
    """Decision 5: piece hashes are those of the index: blobs may be out of reach meanwhile."""
    push(store, "app", ONE)
    stored_manifest = store.manifests.get("app", "latest")
    seeder = Seeder(store, swarm)
    (store.location / "blobs").rename(store.location / "away")
    torrent = seeder.metainfo(stored_manifest, announce="http://127.0.0.1:1/announce")
    layers = {Digest.of(layer) for layer in ONE.layers}
    assert layers <= {file.digest for file in torrent.files}
    assert store.manifests.torrent(torrent.info_hash) == ("app", ONE.digest)
    (store.location / "away").rename(store.location / "blobs")
    for file in torrent.files:
        if file.digest:
            assert torrent.hashes(file) == store.blobs.piece_hashes([file.digest])[file.digest]


def test_the_same_image_is_the_same_torrent(tmp_path: Path, swarm: Swarm) -> None:
    """Decision 4: equal images share a swarm: whatever store, repository, tag or tracker."""
    hashes = set()
    for number in range(2):
        with open_store(tmp_path / f"store-{number}") as store:
            push(store, f"app-{number}", ONE, tag=f"v{number}")
            stored_manifest = store.manifests.get(f"app-{number}", f"v{number}")
            for _ in range(2):
                seeder = Seeder(store, swarm)
                torrent = seeder.metainfo(
                    stored_manifest, announce=f"http://127.0.0.{number + 1}/announce"
                )
                hashes.add(torrent.info_hash)
                assert seeder.metainfo(stored_manifest, announce="").info_hash == torrent.info_hash
    assert len(hashes) == 1


def test_no_torrent_without_a_layer(store: Store, swarm: Swarm) -> None:
    """Decision 5: a torrent needs the hashes of every layer."""
    push(store, "app", ONE)
    stored_manifest = store.manifests.get("app", "latest")
    store.manifests.delete("app", ONE.digest)
    store.maintenance.gc(grace=0)
    with pytest.raises(BlobUnknown):
        Seeder(store, swarm).metainfo(stored_manifest, announce="")


def test_questions_about_layers_read_none(store: Store) -> None:
    """Decision 2: which diff_ids are held, sizes and sharing are answered by the index."""
    push(store, "app", ONE)
    shutil.rmtree(store.location / "blobs")
    layers = store.layers.find(map(Digest.of, ONE.plain))
    assert len(layers) == 2
    for layer in layers.values():
        assert store.layers.get(layer.digest) == layer
        assert store.blobs.mount(layer.digest, repository="other")
        assert not store.manifests.is_shared(layer.digest, ONE.digest)
        assert store.blobs.piece_hashes([layer.digest])
