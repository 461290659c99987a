"""fsck --read-data compares what is recorded of layers with what they unpack to."""

from __future__ import annotations

from pathlib import Path

import pytest

from docket.compression import GZIP, NONE, ZSTD
from docket.errors import Stopped
from docket.oci.digest import Digest
from docket.store import Sample, Store, rebuild_index
from docket.store.blobs.unpacking import Unpacked
from docket.store.index.records import key_of
from docket.store.types import LayerBlob
from tests.store.samples import adopted, image, open_store, packed, push, tar, upload

PLAIN = tar("layer")
DIFF_ID = Digest.of(PLAIN)
RIGHT = Unpacked(DIFF_ID, len(PLAIN), ZSTD)
WRONG = {
    "diff_id": Unpacked(Digest.of(b"another"), len(PLAIN), ZSTD),
    "size": Unpacked(DIFF_ID, len(PLAIN) + 1, ZSTD),
    "compression": Unpacked(DIFF_ID, len(PLAIN), GZIP),
}


def findings(store: Store, sample: Sample | None = None) -> list[tuple[str, str, str]]:
    """What a check that reads all data finds, or *sample*."""
    report = store.maintenance.fsck(sample=sample or Sample())
    return [(finding.kind, finding.what, finding.outcome) for finding in report.findings]


def facts(layer: LayerBlob | None) -> Unpacked | None:
    """What is recorded of a layer, without hints."""
    if layer is None or layer.is_hint:
        return None
    return Unpacked(layer.diff_id, layer.plain_size, layer.compression)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_hint(store: Store, wrong: str) -> None:
    """It is reported once and corrected, in the row and in what is found by diff_id."""
    digest = adopted(store, packed(PLAIN), WRONG[wrong])
    assert findings(store) == [
        ("layer", f"diff_id and size of {digest}", "corrected from the blob")
    ]
    assert facts(store.layers.get(digest)) == RIGHT
    assert store.layers.find([WRONG[wrong].diff_id, DIFF_ID]).keys() == {DIFF_ID}
    assert findings(store) == []


def test_a_right_hint(store: Store) -> None:
    """Nothing is reported; the hint is a fact from then on."""
    digest = adopted(store, packed(PLAIN), RIGHT)
    assert findings(store) == []
    assert facts(store.layers.get(digest)) == RIGHT


def test_a_hint_of_what_does_not_unpack(store: Store) -> None:
    """A blob that begins as a compressed stream and is none has no diff_id."""
    digest = adopted(store, packed(PLAIN)[:-4], RIGHT)
    assert findings(store) == [
        ("layer", f"diff_id and size of {digest}", "removed: the blob doesn't show it")
    ]
    assert store.layers.get(digest) is None
    assert findings(store) == []


@pytest.mark.parametrize("kind", [NONE, GZIP, ZSTD])
def test_a_wrong_record(store: Store, kind: str) -> None:
    """A row that was wrong when it was written passes its checksum; it is corrected too."""
    digest = upload(store, "app", packed(PLAIN, kind)).digest
    store.layers.correct(digest, diff_id=Digest.of(b"another"), plain_size=7)
    assert [kind for kind, _, _ in findings(store)] == ["layer"]
    assert facts(store.layers.get(digest)) == Unpacked(DIFF_ID, len(PLAIN), kind)


def test_only_what_is_read_is_unpacked(store: Store) -> None:
    """Without --read-data, and for blobs of other parts, nothing is unpacked."""
    digest = adopted(store, packed(PLAIN), WRONG["size"])
    assert store.maintenance.fsck().findings == []
    parts = [Sample(part, 5) for part in range(1, 6)]
    assert [bool(findings(store, part)) for part in parts] == [part.has(digest) for part in parts]


def test_a_layer_that_is_still_to_be_measured(tmp_path: Path) -> None:
    """It is left to those who measure: that is no damage."""
    with open_store(tmp_path) as store:
        store._measuring.close()
        upload_id = store.uploads.begin("app")
        with store.uploads.open("app", upload_id) as session:
            session.write(packed(PLAIN))
            digest = Digest.of(packed(PLAIN))
            store.uploads.finish("app", session, digest)
        assert findings(store) == []
        assert store.layers.get(digest) is None
    with open_store(tmp_path) as store:
        assert store.layers.wait([digest], seconds=60)
        assert facts(store.layers.get(digest)) == RIGHT


def test_a_check_is_stopped_while_it_unpacks(store: Store) -> None:
    """A layer that takes long to unpack doesn't hold the end of the registry up."""
    zeros = packed(tar("zeros", size=64 << 20))
    upload(store, "app", zeros)
    calls = 0

    def is_stopped() -> bool:
        nonlocal calls
        calls += 1
        return calls > 20

    with pytest.raises(Stopped):
        store.maintenance.fsck(sample=Sample(), is_stopped=is_stopped)
    assert calls < 40


def test_a_hint_survives_a_rebuild_as_a_hint(tmp_path: Path) -> None:
    """A rebuild unpacks what it reads: a wrong hint doesn't come back from the journal."""
    with open_store(tmp_path) as store:
        digest = adopted(store, packed(PLAIN), WRONG["diff_id"])
        broken = adopted(store, packed(PLAIN)[:-4], RIGHT)
        push(store, "app", image("one"))
    rebuild_index(tmp_path, owner="test")
    with open_store(tmp_path) as store:
        assert facts(store.layers.get(digest)) == RIGHT
        assert facts(store.layers.get(broken)) is None
        with store._index.read() as txn:
            keys = list(store._index.layers.values(txn, key_of(DIFF_ID)))
        assert key_of(digest) in keys
        assert findings(store)[1:] == []
