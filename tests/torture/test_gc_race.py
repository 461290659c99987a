"""Pushers against gc in a loop: nothing acknowledged broken, no push refused, no garbage left."""

from __future__ import annotations

import time
from pathlib import Path

import lmdb
import pytest

from docket.errors import BlobUnknown, RegistryRefused
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.reference import Reference
from docket.remote.client import Client
from docket.store import Store
from tests.store.samples import (
    Image,
    assert_readable,
    assert_sound,
    blob_files,
    open_store,
    push,
    upload,
)
from tests.support.commands import registry
from tests.torture.push_workload import PushClock, race

pytestmark = pytest.mark.xdist_group("torture")

HOUR = 3600.0
PUSHERS = 8

TABLES_OF_IMAGES = [
    "blobs",
    "children",
    "layers",
    "links",
    "manifests",
    "parents",
    "pieces",
    "referrers",
    "tags",
    "torrents",
]


class StoreCalls:
    """Pushers in one process with the store, under a clock that lets their pins run out."""

    def __init__(self, store: Store, clock: PushClock) -> None:
        self._store = store
        self._clock = clock

    def push(self, repository: str, pushed: Image, tag: str) -> None:
        with self._clock.push():
            if pushed.digest.hex[0] in "01234567":
                push(self._store, repository, pushed, tag=tag)
            else:
                self._push_as_docker_does(repository, pushed, tag)

    def check(self, repository: str, tag: str, pushed: Image) -> None:
        assert self._store.manifests.get(repository, tag).digest == pushed.digest
        assert_readable(self._store, repository, tag)

    def delete_tag(self, repository: str, tag: str) -> None:
        self._store.manifests.delete_tag(repository, tag)

    def delete_manifest(self, repository: str, pushed: Image) -> None:
        self._store.manifests.delete(repository, pushed.digest)

    def collect(self) -> int:
        return self._store.maintenance.gc(grace=0).blobs

    def _push_as_docker_does(self, repository: str, pushed: Image, tag: str) -> None:
        """HEAD, and where that says no, try a mount before the upload."""
        for blob in pushed.blobs:
            digest = Digest.of(blob)
            try:
                self._store.blobs.get(digest, repository=repository)
            except BlobUnknown:
                if not self._store.blobs.mount(digest, repository=repository):
                    upload(self._store, repository, blob)
        self._store.manifests.put(repository, pushed.content, pushed.parsed, tags=[tag])


class RegistryCalls:
    """Pushers that talk to a registry process whose pins last for *pin_seconds*."""

    def __init__(self, client: Client, *, pin_seconds: float) -> None:
        self._client = client
        self._pin_seconds = pin_seconds
        self.late = 0

    def push(self, repository: str, pushed: Image, tag: str) -> None:
        began = time.monotonic()
        try:
            self._push(repository, pushed, tag)
        except RegistryRefused:
            if time.monotonic() - began < self._pin_seconds:
                raise
            self.late += 1  # a machine that stood still: pins ran out, as they may
            self._push(repository, pushed, tag)

    def check(self, repository: str, tag: str, pushed: Image) -> None:
        remote_manifest = self._client.manifest(Reference(repository, tag))
        assert remote_manifest.content == pushed.content
        for child in pushed.parsed.children:
            self._client.read_blob(repository, child)

    def delete_tag(self, repository: str, tag: str) -> None:
        self._client.delete(Reference(repository, tag))

    def delete_manifest(self, repository: str, pushed: Image) -> None:
        self._client.delete(Reference(repository, pushed.digest))

    def collect(self) -> int:
        return int(self._client.gc(dry_run=False, grace=0)["blobs"])

    def _push(self, repository: str, pushed: Image, tag: str) -> None:
        layers = self._client.missing(repository, [Digest.of(layer) for layer in pushed.plain])
        for plain, layer in zip(pushed.plain, pushed.layers, strict=True):
            if Digest.of(plain) not in layers:
                self._client.put_blob(repository, [layer])
        if self._client.blob_size(repository, Digest.of(pushed.config)) is None:
            self._client.put_blob(repository, [pushed.config])
        reference = Reference(repository, tag)
        self._client.put_manifest(reference, pushed.content, manifest.OCI_MANIFEST)


def test_2000_pushes_against_gc(tmp_path: Path) -> None:
    """Invariant 3: 8 pushers, 2,000 pushes with shared layers, gc without grace or pause."""
    clock = PushClock(lifetime=HOUR, step=HOUR / 16)
    with open_store(tmp_path, pin_seconds=HOUR, clock=clock) as store:
        clock.pass_by(HOUR + 1)
        result = race(StoreCalls(store, clock), pushers=PUSHERS, pushes=2000, seed=3)
        assert result.refused == []
        assert result.broken == []
        assert result.pushed == 2000
        assert result.swept > 2000, "gc had something to do"
    assert_sound(tmp_path)
    assert len(result.alive) == PUSHERS
    nothing_stays(tmp_path)


def test_pushes_over_http_against_gc(tmp_path: Path) -> None:
    """Invariant 3, of the registry as it runs: its pins last for three real seconds."""
    pin_seconds = 3.0
    with (
        registry(tmp_path, "--pin-time", str(pin_seconds)) as url,
        Client(url, connections=16) as client,
    ):
        calls = RegistryCalls(client, pin_seconds=pin_seconds)
        result = race(calls, pushers=PUSHERS, pushes=480, seed=4)
        assert result.refused == []
        assert result.broken == []
        assert result.swept > 200, "gc had something to do"
        assert calls.late < 5
    assert_sound(tmp_path)


def nothing_stays(location: Path) -> None:
    """Once all is deleted and the grace time is over no byte and no record of an image stays."""
    clock = PushClock(lifetime=HOUR, step=0)
    with open_store(location, pin_seconds=HOUR, clock=clock) as store:
        for tagged in store.manifests.tagged():
            store.manifests.delete_tag(tagged.repository, tagged.tag)
        clock.pass_by(HOUR + 1)
        store.maintenance.gc(grace=0)
        assert store.manifests.repositories() == []
    assert blob_files(location) == set()
    for folder in ("uploads", "incoming", "swarm", "trash", "quarantine"):
        assert list((location / folder).iterdir()) == []
    with lmdb.open(str(location / "index"), max_dbs=32, readonly=True) as environment:
        for table in TABLES_OF_IMAGES:
            opened = environment.open_db(table.encode(), create=False)
            with environment.begin(db=opened) as txn:
                assert txn.stat(opened)["entries"] == 0, table
