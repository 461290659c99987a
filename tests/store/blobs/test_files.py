"""Blobs: how they come in, where they can be read, and what is known about them."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from docket.compression import GZIP, NONE, ZSTD
from docket.errors import BlobUnknown, DigestMismatch
from docket.oci.digest import Digest
from docket.oci.manifest import ANNOTATION_ENCODER
from docket.pieces import PIECE_LENGTH, PieceHasher
from docket.store import Sample, Store
from docket.store.blobs.unpacking import Unpacked
from tests.store.samples import (
    ENCODER,
    adopted,
    blob_files,
    blob_path,
    image,
    open_store,
    packed,
    push,
    tar,
    upload,
)
from tests.support.bombs import bomb

ROOT = Path(__file__).parents[3]


def piece_hashes(content: bytes) -> bytes:
    """The SHA-1s of the pieces of *content*."""
    hasher = PieceHasher()
    hasher.update(content)
    return hasher.finish()


def left_over(store: Store) -> list[Path]:
    """Files in the store beside blobs and the index."""
    folders = ("uploads", "incoming", "trash", "quarantine", "swarm")
    return [path for name in folders for path in (store.location / name).rglob("*")]


def test_put(store: Store) -> None:
    """Invariant 1: when `put` returns, the bytes are there, read-only, and read back the same."""
    blob = store.blobs.put(b"config", repository="app")
    assert blob.digest == Digest.of(b"config")
    assert stat.S_IMODE(blob_path(store, blob.digest).stat().st_mode) == 0o444
    assert store.blobs.read(blob.digest) == b"config"
    assert store.blobs.get(blob.digest, repository="app") == blob
    assert left_over(store) == []


def test_put_twice(store: Store) -> None:
    """Decision 1: equal bytes are one blob, whoever brings them."""
    first = store.blobs.put(b"config", repository="one")
    again = store.blobs.put(b"config", repository="two")
    assert first == again
    assert blob_files(store.location) == {first.digest.hex}
    assert left_over(store) == []


def test_empty_blob(store: Store) -> None:
    """No bytes are a blob too, without pieces."""
    blob = upload(store, "app", b"")
    assert blob.size == 0
    assert store.blobs.piece_hashes([blob.digest]) == {blob.digest: b""}


def test_adopt(store: Store, tmp_path: Path) -> None:
    """Decision 7: adopting makes a hard link, never a copy; the file keeps its name."""
    layer = packed(tar("a"))
    path = tmp_path / "incoming"
    path.write_bytes(layer)
    blob = store.blobs.adopt(path, Digest.of(layer))
    assert blob_path(store, blob.digest).samefile(path)
    assert store.blobs.read(blob.digest) == layer
    path.unlink()
    assert store.blobs.read(blob.digest) == layer
    assert store.blobs.adopt(path, blob.digest) == blob, "adopting what is held is a no-op"


def test_adopt_what_is_something_else(store: Store, tmp_path: Path) -> None:
    """Invariant 1: on a mismatch nothing is stored and the file stays."""
    path = tmp_path / "incoming"
    path.write_bytes(b"poison")
    with pytest.raises(DigestMismatch) as caught:
        store.blobs.adopt(path, Digest.of(b"layer"))
    assert caught.value.actual == Digest.of(b"poison")
    assert path.read_bytes() == b"poison"
    assert blob_files(store.location) == set()
    assert not store.blobs.has(Digest.of(b"layer"))
    assert not store.blobs.has(Digest.of(b"poison"))


def test_adopt_takes_a_hint(store: Store) -> None:
    """What a registry says of a compressed layer is recorded as a hint, and nothing is unpacked."""
    plain = tar("one")
    hint = Unpacked(Digest.of(b"another"), 5, ZSTD)
    layer = store.layers.get(adopted(store, packed(plain), hint))
    assert layer
    assert (layer.diff_id, layer.plain_size, layer.compression) == (hint.diff_id, 5, ZSTD)
    assert layer.is_hint


def test_a_hint_is_never_found_by_diff_id(store: Store) -> None:
    """Whoever looks for a diff_id gets only layers that were unpacked: a hint may be poison."""
    plain = tar("one")
    poison = adopted(store, packed(tar("poison")), Unpacked(Digest.of(plain), len(plain), ZSTD))
    assert store.layers.find([Digest.of(plain)]) == {}
    layer = upload(store, "app", packed(plain)).digest
    assert store.layers.find([Digest.of(plain)])[Digest.of(plain)].digest == layer
    store.maintenance.fsck(sample=Sample())
    assert store.layers.find([Digest.of(tar("poison"))])[Digest.of(tar("poison"))].digest == poison


def test_a_hint_of_what_the_bytes_say(store: Store) -> None:
    """A layer that isn't compressed shows what it is: no hint changes that."""
    plain = tar("one")
    layer = store.layers.get(adopted(store, plain, Unpacked(Digest.of(b"another"), 5, ZSTD)))
    assert layer
    assert (layer.diff_id, layer.plain_size) == (Digest.of(plain), len(plain))
    assert not layer.is_hint
    assert store.layers.get(adopted(store, b"no tar", Unpacked(Digest.of(b"x"), 5, ZSTD))) is None


def test_a_hint_that_load_corrects(store: Store) -> None:
    """What unpacking gave is a fact."""
    plain = tar("one")
    digest = adopted(store, packed(plain), Unpacked(Digest.of(plain), 5, ZSTD))
    store.layers.correct(digest, diff_id=Digest.of(plain), plain_size=len(plain))
    assert store.layers.find([Digest.of(plain)])[Digest.of(plain)].plain_size == len(plain)


def test_adopt_does_not_hash_pieces_that_were(store: Store, tmp_path: Path) -> None:
    """What the bytes were checked with on their way in is recorded."""
    path = tmp_path / "incoming"
    path.write_bytes(b"layer")
    blob = store.blobs.adopt(path, Digest.of(b"layer"), piece_hashes=b"checked".ljust(20))
    assert store.blobs.piece_hashes([blob.digest]) == {blob.digest: b"checked".ljust(20)}


def test_upload_of_something_else(store: Store) -> None:
    """Bad input § digest mismatch: the temporary file is gone, nothing is stored."""
    upload_id = store.uploads.begin("app")
    with store.uploads.open("app", upload_id) as session:
        session.write(b"poison")
        with pytest.raises(DigestMismatch):
            store.uploads.finish("app", session, Digest.of(b"layer"))
    assert blob_files(store.location) == set()
    assert left_over(store) == []


def test_a_blob_is_read_through_its_repository(store: Store) -> None:
    """Bad input § reading a blob of another repository: only through a repository link."""
    digest = store.blobs.put(b"secret", repository="one").digest
    with pytest.raises(BlobUnknown):
        store.blobs.get(digest, repository="two")
    with pytest.raises(BlobUnknown):
        store.blobs.unlink("two", digest)


def test_mount(store: Store) -> None:
    """OCI distribution § mounting: linked when the source has it, and only then."""
    digest = store.blobs.put(b"layer", repository="one").digest
    assert not store.blobs.mount(digest, repository="two", source="three")
    assert not store.blobs.mount(Digest.of(b"other"), repository="two")
    with pytest.raises(BlobUnknown):
        store.blobs.get(digest, repository="two")
    assert store.blobs.mount(digest, repository="two", source="one")
    assert store.blobs.get(digest, repository="two").digest == digest
    assert store.blobs.mount(digest, repository="four"), "from is optional"


def test_unlink(store: Store) -> None:
    """OCI distribution § deleting blobs: the repository loses it at once, others keep it."""
    digest = store.blobs.put(b"layer", repository="one").digest
    store.blobs.mount(digest, repository="two")
    store.blobs.unlink("one", digest)
    with pytest.raises(BlobUnknown):
        store.blobs.get(digest, repository="one")
    with pytest.raises(BlobUnknown):
        store.blobs.unlink("one", digest)
    assert store.blobs.get(digest, repository="two").digest == digest


def test_a_file_that_went_bad(store: Store) -> None:
    """Invariant 4: a small blob whose bytes are wrong is never handed out."""
    blob = store.blobs.put(b"config")
    blob_path(store, blob.digest).chmod(0o644)
    blob_path(store, blob.digest).write_bytes(b"c0nfig")
    with pytest.raises(BlobUnknown):
        store.blobs.read(blob.digest)
    assert not store.blobs.has(blob.digest), "it is out of reach, so that the next push brings it"
    assert store.blobs.read(store.blobs.put(b"config").digest) == b"config"


@pytest.mark.parametrize("kind", [ZSTD, GZIP, NONE])
def test_layers_by_diff_id(store: Store, kind: str) -> None:
    """Decision 2: however a layer is compressed, it is found by the digest of its plain tar."""
    plain = tar("a", size=700_000)
    layer = packed(plain, kind)
    upload(store, "app", layer, parts=3)
    found = store.layers.find([Digest.of(plain), Digest.of(b"unknown")])
    assert list(found) == [Digest.of(plain)]
    one = found[Digest.of(plain)]
    assert (one.digest, one.size) == (Digest.of(layer), len(layer))
    assert (one.plain_size, one.compression) == (len(plain), kind)
    assert store.layers.get(one.digest) == one


def test_what_is_no_layer_has_no_diff_id(store: Store) -> None:
    """Decision 2: configs, and streams that break off, are blobs without a diff_id."""
    broken = packed(tar("a"))[:-5]
    for content in (b"{}", broken, b"\x1f\x8b", b""):
        upload(store, "app", content)
        assert store.layers.get(Digest.of(content)) is None


def test_nothing_waits_for_a_bomb(tmp_path: Path) -> None:
    """Bad input § decompression bombs: an upload ends before its layer is unpacked, reads go on
    meanwhile, and closing the store stops it; the next start goes on with it.
    """
    content = bomb(ZSTD, 64 << 30)
    digest = Digest.of(content)
    store = open_store(tmp_path)
    upload_id = store.uploads.begin("app")
    with store.uploads.open("app", upload_id) as session:
        session.write(content)
        store.uploads.finish("app", session, digest)
    assert not store.layers.wait([digest], seconds=0)
    assert Digest.of(store.blobs.read(digest)) == digest
    assert store.layers.get(digest) is None
    store.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("unpack")]
    with open_store(tmp_path) as store:
        assert not store.layers.wait([digest], seconds=0)


def test_a_restart_goes_on_measuring(tmp_path: Path) -> None:
    """A layer whose registry ended before it was unpacked is found by its diff_id after a start."""
    plain = tar("a", size=20_000)
    store = open_store(tmp_path)
    store._measuring.close()
    upload(store, "app", packed(plain))
    assert store.layers.find([Digest.of(plain)]) == {}
    store.close()
    with open_store(tmp_path) as store:
        assert store.layers.wait([Digest.of(packed(plain))], seconds=60)
        assert store.layers.find([Digest.of(plain)])[Digest.of(plain)].plain_size == len(plain)
        assert store.maintenance.fsck(sample=Sample()).findings == []


@pytest.mark.parametrize("size", [1, PIECE_LENGTH - 1, PIECE_LENGTH, 3 * PIECE_LENGTH + 17])
def test_piece_hashes(store: Store, size: int) -> None:
    """Decision 5: the hashes of a blob's pieces are stored while it is taken in."""
    content = bytes(range(251)) * (size // 251 + 1)
    content = content[:size]
    blob = upload(store, "app", content, parts=4)
    assert store.blobs.piece_hashes([blob.digest])[blob.digest] == piece_hashes(
        blob_path(store, blob.digest).read_bytes()
    )


def test_piece_hashes_of_what_is_not_held(store: Store) -> None:
    """Decision 5: a torrent is made of held blobs alone."""
    with pytest.raises(BlobUnknown):
        store.blobs.piece_hashes([Digest.of(b"x")])


def test_the_encoder_is_a_hint(store: Store) -> None:
    """Decision 11: a repository gets back what its own manifest says compressed a layer."""
    first = image("a", "b")
    push(store, "app", first)
    push(store, "other", image("a", "c"), tag=None)
    layers = [Digest.of(layer) for layer in first.layers]
    assert [store.manifests.encoder("app", layer) for layer in layers] == [ENCODER, ENCODER]
    assert store.manifests.encoder("other", layers[1]) == ""


@pytest.mark.parametrize("text", ["x" * 3_000_000, "zstd/1.5.7 level=3\nx", "zstd/1 level=3; rm"])
def test_an_encoder_that_is_none(store: Store, text: str) -> None:
    """A manifest's annotation is whatever its pusher liked: nothing else is given to others."""
    pushed = image("a")
    body = json.loads(pushed.content)
    body["layers"][0]["annotations"] = {ANNOTATION_ENCODER: text}
    push(store, "app", replace(pushed, content=json.dumps(body).encode()))
    assert store.manifests.encoder("app", Digest.of(pushed.layers[0])) == ""


def test_sha512(store: Store) -> None:
    """OCI image § registered algorithms: a SHA-512 digest names a blob as well."""
    layer = packed(tar("a"))
    expected = Digest.of(layer, algorithm="sha512")
    upload_id = store.uploads.begin("app")
    with store.uploads.open("app", upload_id) as session:
        session.write(layer)
        blob = store.uploads.finish("app", session, expected)
    assert store.layers.wait([expected], seconds=60)
    assert Digest.of_file(blob_path(store, blob.digest), algorithm="sha512") == expected
    assert store.layers.find([Digest.of(tar("a"))])[Digest.of(tar("a"))].digest == expected


def test_link_out(store: Store, tmp_path: Path) -> None:
    """Decision 7: what is seeded is a hard link to the blob; a second one is no error."""
    digest = store.blobs.put(b"layer").digest
    for _ in range(2):
        store.blobs.link_out(digest, tmp_path / "swarm" / "layer")
    assert (tmp_path / "swarm" / "layer").samefile(blob_path(store, digest))
    with pytest.raises(BlobUnknown):
        store.blobs.link_out(Digest.of(b"x"), tmp_path / "x")


WIDE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import zstandard

from docket.oci.digest import Digest
from tests.fuzz.guard import peak_megabytes
from tests.store.samples import open_store, tar, upload

# as "zstd --long=27" writes it: whoever unpacks it must be able to look 128 MiB back
how = zstandard.ZstdCompressionParameters.from_level(1, window_log=27, write_content_size=False)
digests, layers = [], []
for number in range(10):
    plain = tar(f"wide {number}", size=1000) + bytes(140 << 20)
    running = zstandard.ZstdCompressor(compression_params=how).compressobj()
    layers.append(running.compress(plain) + running.flush())
    digests.append(Digest.of(plain))
del plain, running
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
with open_store(Path(sys.argv[1])) as store, ThreadPoolExecutor(len(layers)) as threads:
    list(threads.map(lambda layer: upload(store, "app", layer, parts=2), layers))
    found = store.layers.find(digests)
    assert [found[one].size for one in digests] == [len(layer) for layer in layers]
print(peak_megabytes())
"""


def test_layers_that_need_much_memory_are_unpacked_one_at_a_time(tmp_path: Path) -> None:
    """Bad input § bombs: ten wide windows take the memory of one; every diff_id is known."""
    done = subprocess.run(
        [sys.executable, "-c", WIDE, str(tmp_path)], check=True, capture_output=True, cwd=ROOT
    )
    assert int(done.stdout) < 700
