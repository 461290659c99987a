"""A store beside a model of it: whatever is done in whatever order, both say the same.

Readers are at work all the while on threads of their own. What they get is right, or an error.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from docket.errors import (
    BlobUnknown,
    ManifestBlobUnknown,
    ManifestUnknown,
    RepositoryUnknown,
)
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor
from docket.store import Sample, Store
from tests.store.samples import Clock, Image, blob_files, blob_path, image, open_store, push

HOUR = 3600.0
REPOSITORIES = ("app", "team/other")
TAGS = ("latest", "v1", "v2")
IMAGES = tuple(image("base", f"common {number % 2}", f"own {number}") for number in range(4))
BLOBS = {Digest.of(blob): blob for image in IMAGES for blob in (*image.blobs, image.content)}

READ = IMAGES[:2]
"""What readers read; so they keep it. The others only stay by what users are promised."""

UNREAD = sorted(
    {Digest.of(blob) for image in IMAGES[2:] for blob in image.blobs}
    - {Digest.of(blob) for image in READ for blob in image.blobs},
    key=str,
)


def index_of(*members: Image) -> bytes:
    """The bytes of an index of *members*."""
    return manifest.image_index(
        [
            Descriptor(manifest.OCI_MANIFEST, member.digest, len(member.content))
            for member in members
        ]
    )


INDEXES = (index_of(IMAGES[0], IMAGES[1]), index_of(IMAGES[1], IMAGES[2]))
MANIFESTS = {
    Digest.of(content): content for content in (*(image.content for image in IMAGES), *INDEXES)
}

repositories = st.sampled_from(REPOSITORIES)
tags = st.sampled_from(TAGS)
numbers = st.sampled_from(range(len(IMAGES)))
manifests = st.sampled_from(sorted(MANIFESTS, key=str))


def children(digest: Digest) -> list[Digest]:
    """What the manifest *digest* lists."""
    return [child.digest for child in manifest.parse(MANIFESTS[digest]).children]


def members(digest: Digest) -> set[Digest]:
    """Those of them that are manifests themselves."""
    return set(children(digest)).intersection(MANIFESTS)


@dataclass
class Repository:
    """What is known of one: its manifests, tags and links; what no tag needs may have gone."""

    manifests: set[Digest] = field(default_factory=set)
    tags: dict[str, Digest] = field(default_factory=dict)

    def living(self) -> set[Digest]:
        """The manifests that a tag reaches."""
        living: set[Digest] = set()
        left = [digest for digest in self.tags.values() if digest in self.manifests]
        while left:
            living.add(digest := left.pop())
            left += (members(digest) & self.manifests) - living
        return living


offsets = st.integers(0, 1 << 16)
LISTED = sorted({Digest.of(blob) for image in IMAGES for blob in image.blobs}, key=str)


class Reader:
    """Reads blobs on a thread until it is stopped; *wrong* says what it should not have got."""

    def __init__(self, number: int, machine: StoreAndModel) -> None:
        self.wrong: list[str] = []
        self._lots = random.Random(number)
        self._machine = machine
        self._go_on = threading.Event()
        self._reading = threading.Lock()
        self._over = False
        self._thread = threading.Thread(target=self._run, name=f"reader {number}")
        self._go_on.set()
        self._thread.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is read inside."""
        self._go_on.clear()
        with self._reading:
            yield
        self._go_on.set()

    def stop(self) -> None:
        """End the thread."""
        self._over = True
        self._go_on.set()
        self._thread.join()

    def _run(self) -> None:
        digests = [Digest.of(blob) for image in READ for blob in (*image.blobs, image.content)]
        try:
            while not self._over:
                self._go_on.wait()
                with self._reading:
                    self._read(self._lots.choice(digests))
        except BaseException as error:
            self.wrong.append(repr(error))

    def _read(self, digest: Digest) -> None:
        store = self._machine.store
        with suppress(BlobUnknown):
            if store.blobs.read(digest) != BLOBS[digest]:
                self.wrong.append(f"read gives other bytes than those of {digest}")
        # as the API does it: the file is opened, and read while others work
        with suppress(BlobUnknown, FileNotFoundError), blob_path(store, digest).open("rb") as file:
            content = b"".join(iter(lambda: file.read(512), b""))
            if content != BLOBS[digest] and digest not in self._machine.damaged:
                self.wrong.append(f"the file of {digest} has other bytes")


class StoreAndModel(RuleBasedStateMachine):
    """*held* are blobs, *promised* those that were told to be here within the last hour.

    *damaged* may be open in a reader that found it before anyone knew; *lost* are known as wrong.
    """

    def __init__(self) -> None:
        super().__init__()
        self.location = Path(tempfile.mkdtemp(prefix="docket-machine-"))
        self.clock = Clock()
        self.model = {name: Repository() for name in REPOSITORIES}
        self.held: set[Digest] = set()
        self.promised: set[Digest] = set()
        self.damaged: set[Digest] = set()
        self.lost: set[Digest] = set()
        self.store = self._open()
        self.readers: list[Reader] = []

    @initialize()
    def begin(self) -> None:
        """Two readers are at work from the start."""
        self.readers = [Reader(number, self) for number in range(2)]

    def teardown(self) -> None:
        """Nothing is left."""
        for reader in self.readers:
            reader.stop()
        self.store.close()
        shutil.rmtree(self.location)

    # -- what users do

    @rule(repository=repositories, number=numbers, tag=st.none() | tags)
    def push(self, repository: str, number: int, tag: str | None) -> None:
        """A push of an image, maybe without a tag."""
        pushed = IMAGES[number]
        assert push(self.store, repository, pushed, tag=tag) == pushed.digest
        self._promise(pushed.digest, *children(pushed.digest))
        self.model[repository].manifests.add(pushed.digest)
        if tag:
            self.model[repository].tags[tag] = pushed.digest

    @rule(repository=repositories, number=st.sampled_from(range(2)), tag=st.none() | tags)
    def push_images_and_index(self, repository: str, number: int, tag: str | None) -> None:
        """A push of two images without a tag, and then of their index."""
        for member in (number, number + 1):
            self.push(repository, member, None)
        self.push_index(repository, number, tag)

    @rule(repository=repositories, number=st.sampled_from(range(2)), tag=st.none() | tags)
    def push_index(self, repository: str, number: int, tag: str | None) -> None:
        """A push of an index, which needs its manifests."""
        content = INDEXES[number]
        digest = Digest.of(content)
        repo = self.model[repository]
        parsed = manifest.parse(content)
        if not repo.manifests.issuperset(children(digest)):
            with pytest.raises(ManifestBlobUnknown):
                self.store.manifests.put(repository, content, parsed, tags=[tag] if tag else [])
            return
        self.store.manifests.put(repository, content, parsed, tags=[tag] if tag else [])
        self._promise(digest)
        repo.manifests.add(digest)
        if tag:
            repo.tags[tag] = digest

    @rule(repository=repositories, tag=tags, new=tags)
    def retag(self, repository: str, tag: str, new: str) -> None:
        """The manifest of one tag is put under another; all that it lists must be here."""
        repo = self.model[repository]
        digest = repo.tags.get(tag)
        if digest is None:
            return
        content = MANIFESTS[digest]
        parsed = manifest.parse(content)
        if not repo.manifests.issuperset(members(digest)) or self.lost.intersection(
            children(digest)
        ):
            with pytest.raises(ManifestBlobUnknown):
                self.store.manifests.put(repository, content, parsed, tags=[new])
            return
        self.store.manifests.put(repository, content, parsed, tags=[new])
        self._promise(digest)
        repo.tags[new] = digest

    @rule(repository=repositories, tag=tags)
    def delete_tag(self, repository: str, tag: str) -> None:
        """A tag goes, if it is there."""
        if self.model[repository].tags.pop(tag, None):
            self.store.manifests.delete_tag(repository, tag)
        else:
            with pytest.raises(ManifestUnknown):
                self.store.manifests.delete_tag(repository, tag)

    @rule(repository=repositories, digest=manifests)
    def delete_manifest(self, repository: str, digest: Digest) -> None:
        """A manifest goes with its tags, if it is there."""
        repo = self.model[repository]
        if digest not in repo.manifests:
            with pytest.raises(ManifestUnknown):
                self.store.manifests.delete(repository, digest)
            return
        self.store.manifests.delete(repository, digest)
        repo.manifests.discard(digest)
        repo.tags = {
            tag: digest_of_tag
            for tag, digest_of_tag in repo.tags.items()
            if digest_of_tag != digest
        }

    @rule(repository=repositories, digest=st.sampled_from(UNREAD))
    def mount(self, repository: str, digest: Digest) -> None:
        """A blob is mounted if it is held, and then stays."""
        assert self.store.blobs.mount(digest, repository=repository) == (digest in self.held)
        if digest in self.held:
            self._promise(digest)

    @rule(repository=repositories, number=st.sampled_from((2, 3)))
    def mount_what_is_old(self, repository: str, number: int) -> None:
        """A layer is mounted that nobody was told of for an hour, and gc comes behind it."""
        self.push(repository, number, None)
        self.an_hour_passes()
        self.mount(repository, Digest.of(IMAGES[number].layers[-1]))
        self.collect()

    # -- what happens

    @rule()
    def an_hour_passes(self) -> None:
        """Promises are over."""
        self.clock.now += HOUR + 1
        self.promised.clear()

    @rule()
    def collect(self) -> None:
        """gc while readers read: promises hold, what tags need stays, the rest may go."""
        self.store.maintenance.gc(grace=0)
        gone = {digest for digest in self.held if not self.store.blobs.has(digest)}
        assert not gone & self.promised
        assert not gone & self._needed()
        self._forget(gone)
        for name, repo in self.model.items():
            lost = {digest for digest in repo.manifests if not self._there(name, digest)}
            assert not lost & repo.living()
            repo.manifests -= lost

    @rule()
    def collect_when_all_is_quiet(self) -> None:
        """gc with all promises over: what no tag needs is gone from the index and the disk."""
        with self._quiet():
            self.an_hour_passes()
            self.store.maintenance.gc(grace=0)
        for repo in self.model.values():
            repo.manifests = repo.living()
        self._forget(self.held - self._needed())
        assert blob_files(self.location) == {digest.hex for digest in self.held}

    @rule()
    def restart(self) -> None:
        """The store is closed and opened again: nothing changes, and all is promised anew."""
        with self._quiet():
            self.store.close()
            self.store = self._open()
        self.promised = set(self.held)

    @rule(digest=st.sampled_from(LISTED), offset=offsets, by_fsck=st.booleans())
    def corrupt(self, digest: Digest, offset: int, by_fsck: bool) -> None:
        """A bit of a blob flips; a check or the next read finds it, and then it is unknown."""
        if digest in self.held:
            self._corrupt(digest, offset, by_fsck)
            self.lost.add(digest)

    @rule(repository=repositories, number=numbers, offset=offsets, by_fsck=st.booleans())
    def corrupt_a_manifest(self, repository: str, number: int, offset: int, by_fsck: bool) -> None:
        """The same with a manifest, which the next push brings back for all tags."""
        self.push(repository, number, None)
        self._corrupt(IMAGES[number].digest, offset, by_fsck)
        with pytest.raises(ManifestUnknown):
            self.store.manifests.get(repository, IMAGES[number].digest)
        self.push(repository, number, None)

    @rule()
    def check(self) -> None:
        """A check while readers read finds what is lost, and nothing else.

        What an image lacks makes it incomplete; what none lists was mounted for nothing.
        """
        report = self.store.maintenance.fsck(sample=Sample())
        assert {finding.kind for finding in report.findings} <= {"incomplete", "dangling"}
        assert all(any(str(digest) in row.what for digest in self.lost) for row in report.findings)

    # -- what is always true

    @invariant()
    def tags_are_those_of_the_model(self) -> None:
        """Tags point where they were put, and all that they need is here and right."""
        tags = {(row.repository, row.tag): row.digest for row in self.store.manifests.tagged()}
        assert tags == {
            (name, tag): digest
            for name, repo in self.model.items()
            for tag, digest in repo.tags.items()
        }
        for name, repo in self.model.items():
            with suppress(RepositoryUnknown):
                assert self.store.manifests.tags(name) == sorted(repo.tags)
            for digest in repo.living():
                self._check_manifest(name, digest)

    @invariant()
    def readers_got_nothing_wrong(self) -> None:
        """Bytes that a reader got are right, or it got an error."""
        assert [words for reader in self.readers for words in reader.wrong] == []

    # -- inside

    def _open(self) -> Store:
        return open_store(self.location, pin_seconds=HOUR, clock=self.clock)

    def _promise(self, *digests: Digest) -> None:
        self.held.update(digests)
        self.promised.update(digests)
        self.lost.difference_update(digests)

    def _forget(self, gone: set[Digest]) -> None:
        self.held -= gone

    def _corrupt(self, digest: Digest, offset: int, by_fsck: bool) -> None:
        self.damaged.add(digest)
        flip_a_bit(self._file(digest), offset)
        if by_fsck:
            self.store.maintenance.fsck(sample=Sample())
        with pytest.raises(BlobUnknown):
            self.store.blobs.read(digest)
        self.held.discard(digest)
        self.promised.discard(digest)
        # a reader may have found it first, and be about to commit that; then nobody has it open
        with self._quiet():
            assert not self.store.blobs.has(digest)
            self.damaged.discard(digest)

    def _needed(self) -> set[Digest]:
        living = {digest for repo in self.model.values() for digest in repo.living()}
        listed = {child for digest in living for child in children(digest)}
        return living | (listed & self.held)

    def _there(self, repository: str, digest: Digest) -> bool:
        try:
            self.store.manifests.get(repository, digest)
        except ManifestUnknown:
            return False
        return True

    def _check_manifest(self, repository: str, digest: Digest) -> None:
        assert self.store.manifests.get(repository, digest).content == MANIFESTS[digest]
        for child in set(children(digest)) - members(digest):
            self._check_blob(repository, child)

    def _check_blob(self, repository: str, digest: Digest) -> None:
        if digest in self.lost:
            with pytest.raises(BlobUnknown):
                self.store.blobs.read(digest)
        else:
            blob = self.store.blobs.get(digest, repository=repository)
            assert blob_path(self.store, blob.digest).read_bytes() == BLOBS[digest]

    def _file(self, digest: Digest) -> Path:
        (path,) = self.location.glob(f"blobs/*/*/{digest.hex}")
        return path

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        with self.readers[0].paused(), self.readers[1].paused():
            yield


def flip_a_bit(path: Path, offset: int) -> None:
    """Change one bit of a file, in place."""
    content = bytearray(path.read_bytes())
    content[offset % len(content)] ^= 1
    path.chmod(0o644)
    with path.open("rb+") as file:
        file.write(content)


TestStoreAndModel = StoreAndModel.TestCase
TestStoreAndModel.settings = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
