"""Disks that are full at any moment: a clear answer, nothing lost, and work goes on with space.

First in one process, where each change to the disk is refused in turn; then on filesystems in
memory on which ever more space is left, with the real programs.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from docket.errors import ManifestUnknown, RegistryRefused, StoreFull
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
    hexes,
    image,
    open_store,
    push,
    put_index,
)
from tests.support.commands import CommandFailed, Commands, registry
from tests.support.disks import tiny_disk
from tests.support.images import release

pytestmark = pytest.mark.xdist_group("torture")

OLD, NEW, THIRD = image("base", "old"), image("base", "new"), image("base", "third")
MOST_STEPS = 300

KIB = 1 << 10
REPOSITORY = "app"

Operation = Callable[[Store], object]


class FullDisk:
    """Lets *left* changes through that need space, and then none; what frees space goes on."""

    FREEING = ("unlink", "move", "rmtree")

    def __init__(self, location: Path) -> None:
        self.left = MOST_STEPS
        self.refused = 0
        self._location = location

    def __call__(self, name: str) -> None:
        if not name.startswith(self.FREEING):
            self.left -= 1
            if self.left < 0:
                self.refused += 1
                raise StoreFull(self._location)


def full_at_each_step(
    tmp_path: Path, before: Operation, operation: Operation
) -> Iterator[tuple[Store, FullDisk]]:
    """A store in which *operation* met a full disk, for each of its steps, and is still open.

    The disk is full still.
    """
    with open_store(tmp_path / "prepared") as store:
        before(store)
    for count in range(MOST_STEPS):
        location = tmp_path / f"full-{count}"
        shutil.copytree(tmp_path / "prepared", location)
        disk = FullDisk(location)
        with open_store(location, step=disk) as store:
            disk.left = count
            with suppress(StoreFull):
                operation(store)
            yield store, disk
        assert_sound(location)
        shutil.rmtree(location)
        if not disk.refused:
            assert count, "the operation has steps"
            return
    pytest.fail(f"more than {MOST_STEPS} steps")


def push_both(store: Store) -> None:
    """Two images that share a layer."""
    push(store, REPOSITORY, OLD, tag="old")
    push(store, REPOSITORY, NEW, tag="new")


@pytest.mark.parametrize(
    "operation",
    [
        lambda store: push(store, REPOSITORY, THIRD, tag="third"),
        lambda store: push(store, REPOSITORY, NEW, tag="old"),
        lambda store: put_index(store, REPOSITORY, OLD, NEW, tag="all"),
        lambda store: adopted(store, THIRD.layers[1]),
        lambda store: store.manifests.delete(REPOSITORY, OLD.digest),
        lambda store: (
            store.manifests.delete_tag(REPOSITORY, "old"),
            store.maintenance.gc(grace=0),
        ),
    ],
    ids=["push", "move a tag", "push an index", "adopt", "delete", "gc"],
)
def test_full_at_each_step(tmp_path: Path, operation: Operation) -> None:
    """Issue: ENOSPC at every step: nothing lost, delete and gc work, then the push works."""
    for store, disk in full_at_each_step(tmp_path, push_both, operation):
        assert_readable(store, REPOSITORY, "new")
        with suppress(ManifestUnknown):
            assert_readable(store, REPOSITORY, "old")
        disk.left = MOST_STEPS  # somebody made space
        with suppress(ManifestUnknown):
            store.manifests.delete_tag(REPOSITORY, "old")
        for upload_id in uploads(store):
            store.uploads.cancel(REPOSITORY, upload_id)
        with suppress(ManifestUnknown):
            store.manifests.delete_tag(REPOSITORY, "all")
        with suppress(ManifestUnknown):
            store.manifests.delete_tag(REPOSITORY, "third")
        store.maintenance.gc(grace=0)
        assert blob_files(store.location) == hexes(*NEW.blobs, NEW.content)
        for folder in ("uploads", "trash"):
            assert list((store.location / folder).iterdir()) == []
        push(store, REPOSITORY, THIRD, tag="third")
        assert_readable(store, REPOSITORY, "third")


def uploads(store: Store) -> list[uuid.UUID]:
    """Sessions that a push left open; the API ends them when the disk is full."""
    return [uuid.UUID(path.name) for path in (store.location / "uploads").iterdir()]


def adopted(store: Store, layer: bytes) -> None:
    """Take in a layer that came from the swarm."""
    path = store.location / "incoming" / "layer"
    path.write_bytes(layer)
    try:
        store.blobs.adopt(path, Digest.of(layer))
    finally:
        path.unlink()


@contextmanager
def room(disk: Path, count: int) -> Iterator[None]:
    """Another program leaves *count* bytes of the disk, and goes away at the end."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        space = os.statvfs(disk)
        if (size := space.f_bavail * space.f_frsize - count) > 0:
            os.posix_fallocate(file.fileno(), 0, size)
    try:
        yield
    finally:
        filler.unlink()


def push_over_http(client: Client, pushed: Image, tag: str) -> None:
    """Push as `docket push` does. Raises `RegistryRefused`."""
    layers = client.missing(REPOSITORY, [Digest.of(layer) for layer in pushed.plain])
    for plain, layer in zip(pushed.plain, pushed.layers, strict=True):
        if Digest.of(plain) not in layers:
            client.put_blob(REPOSITORY, [layer])
    client.put_blob(REPOSITORY, [pushed.config])
    client.put_manifest(Reference(REPOSITORY, tag), pushed.content, manifest.OCI_MANIFEST)


def answer_to_a_push(client: Client, pushed: Image, tag: str) -> str:
    """Nothing when the push was taken, else what the registry said."""
    try:
        push_over_http(client, pushed, tag)
    except RegistryRefused as error:
        return str(error)
    return ""


def check_over_http(client: Client, pushed: Image, tag: str) -> None:
    """The image is there, each byte of it."""
    assert client.manifest(Reference(REPOSITORY, tag)).content == pushed.content
    for child in pushed.parsed.children:
        client.read_blob(REPOSITORY, child)


def test_a_registry_with_ever_more_space(tmp_path: Path) -> None:
    """Issue: 507 or 201; what was acknowledged is there; delete and gc work on the full disk."""
    answers: list[str] = []
    with (
        tiny_disk(24) as disk,
        registry(disk / "r", "--pin-time", "0") as url,
        Client(url) as client,
    ):
        push_over_http(client, OLD, "old")
        for step, count in enumerate(range(0, 200 * KIB, 4 * KIB)):
            pushed = image("base", f"large {count}", size=50_000)
            push_over_http(client, NEW, "going")
            with room(disk, count):
                answers.append(answer_to_a_push(client, pushed, "next"))
                if not answers[-1]:
                    check_over_http(client, pushed, "next")
                check_over_http(client, OLD, "old")
                check_over_http(client, NEW, "going")
                if step % 4 == 0:
                    client.delete(Reference(REPOSITORY, "going"))
                    assert client.gc(dry_run=False, grace=0)["blobs"] > 0
                    check_over_http(client, OLD, "old")
            push_over_http(client, pushed, "next")
            check_over_http(client, pushed, "next")
            client.delete(Reference(REPOSITORY, "next"))
            client.gc(dry_run=False, grace=0)
        assert list((disk / "r" / "uploads").iterdir()) == []
    refused = [words for words in answers if words]
    assert len(refused) > 5
    assert all(" 507 " in words and "no space left" in words for words in refused)
    assert answers.count("") > 5


def test_a_registry_starts_on_a_full_disk(tmp_path: Path) -> None:
    """Issue: a start needs no space: it serves, deletes and collects garbage."""
    with tiny_disk(24) as disk:
        with registry(disk / "r") as url, Client(url) as client:
            push_over_http(client, OLD, "old")
            push_over_http(client, NEW, "new")
        with (
            room(disk, 0),
            registry(disk / "r", "--pin-time", "0") as url,
            Client(url) as client,
        ):
            check_over_http(client, NEW, "new")
            client.delete(Reference(REPOSITORY, "old"))
            assert client.gc(dry_run=False, grace=0)["blobs"] == 3
            check_over_http(client, NEW, "new")


SMALL = release("small:1.0", [("small", 20_000)])
LARGE = release("large:1.0", [("first", 300_000), ("second", 300_000)])


@pytest.mark.parametrize("way", [(), ("--no-swarm",)], ids=["swarm", "http"])
def test_a_host_with_ever_more_space(tmp_path: Path, way: tuple[str, ...]) -> None:
    """Issue: a pull that doesn't fit is one line and code 7, and goes on when there is space."""
    codes = []
    with registry(tmp_path / "r") as url, tiny_disk(24) as disk:
        for pushed in (SMALL, LARGE):
            archive = pushed.archive(tmp_path / "archive.tar")
            Commands(url, tmp_path / "build")("push", pushed.name, "--archive", archive)
        before = Commands(url, tmp_path / "before")
        before("pull", SMALL.name, "--layers-only")
        host = Commands(url, disk / "h")
        for count in (0, 16 * KIB, 128 * KIB, 256 * KIB, 1000 * KIB):
            shutil.copytree(before.location, host.location)
            with room(disk, count):
                codes.append(code_of(host, "pull", LARGE.name, "--layers-only", *way))
            pull_whole(host, way)
    assert set(codes) == {0, 7}


def test_a_host_whose_first_pull_found_no_space(tmp_path: Path) -> None:
    """Issue: a store that could not be begun is begun when there is space."""
    with registry(tmp_path / "r") as url, tiny_disk(24) as disk:
        archive = LARGE.archive(tmp_path / "archive.tar")
        Commands(url, tmp_path / "build")("push", LARGE.name, "--archive", archive)
        host = Commands(url, disk / "h")
        for count in (0, 8 * KIB, 16 * KIB, 64 * KIB):
            with room(disk, count):
                assert code_of(host, "pull", LARGE.name, "--layers-only") == 7
            pull_whole(host, ())


def pull_whole(host: Commands, way: tuple[str, ...]) -> None:
    """There is space: the pull works, and leaves nothing behind but what it should."""
    host("pull", LARGE.name, "--layers-only", *way)
    assert_sound(host.location)
    for folder in ("uploads", "trash"):
        assert list((host.location / folder).iterdir()) == []
    shutil.rmtree(host.location)


def code_of(host: Commands, *arguments: str) -> int:
    """The code of a command that may meet a full disk: then it says so in one line."""
    try:
        host(*arguments)
    except CommandFailed as error:
        failed = error
    else:
        return 0
    (line,) = [line for line in failed.message.splitlines() if line.startswith("docket:")]
    assert "no space left" in line
    assert "Traceback" not in failed.message
    return failed.code
