"""Customers of a registry that may die at any time, and what each of them was promised.

A customer is the only one who changes its repository, so it knows what must be there: every tag has
the set of manifests that it may point to. A call that was answered leaves one; a call whose answer
never came leaves the one before it and the new one, until somebody looks.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import urllib3

from docket.errors import BlobUnknown, ManifestUnknown, RegistryRefused, RegistryUnreachable
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.reference import Reference
from docket.remote.client import Client
from tests.store.samples import Image, image, packed, tar

TAGS = ("v1", "v2", "v3", "v4")
SIZES = (3_000, 3_000, 30_000, 200_000)
LONG_UPLOAD = packed(tar("long", size=600_000))
PART = 64_000

SHARED_LAYERS = 6
"""Layers that all customers' images share, so that a push finds most of what it needs."""


class Lost(AssertionError):
    """What was acknowledged isn't there, or isn't right."""


class _Over(Exception):
    """The registry's disk is gone; soon the registry is, too."""


@dataclass(slots=True)
class Tally:
    """What all customers have seen."""

    pushed: int = 0
    pulled: int = 0
    deleted: int = 0
    resumed: int = 0
    swept: int = 0
    refused: int = 0
    in_doubt: int = 0
    lost: list[str] = field(default_factory=list)


@lru_cache(maxsize=2000)
def picture(shared: tuple[int, ...], own: str, size: int) -> Image:
    """An image of some of the shared layers and one of its own."""
    return image(*(f"shared {number}" for number in shared), own, size=size)


class Customer:
    """Pushes, tags, pulls, deletes and collects garbage in *repository* until the registry dies.

    *power_cuts* says how: then the disk fails a moment before the registry does, and parts of an
    upload that were acknowledged need not be there afterwards, before the upload is done.
    """

    def __init__(
        self, repository: str, *, seed: int, tick: Callable[[], None], power_cuts: bool = False
    ) -> None:
        self.repository = repository
        self.tags: dict[str, frozenset[Digest | None]] = {tag: frozenset({None}) for tag in TAGS}
        self.tally = Tally()
        self._random = random.Random(f"{repository} {seed}")
        self._tick = tick
        self._power_cuts = power_cuts
        self._upload = ""
        self._uploaded = 0

    def work(self, url: str) -> None:
        """Do one thing after another until the registry at *url* doesn't answer any more."""
        calls = [self._push, self._push_as_docker_does, self._retag, self._pull, self._pull]
        calls += [self._delete_tag, self._delete_manifest, self._collect, self._go_on_uploading]
        weights = [6, 6, 2, 2, 2, 1, 1, 2, 4]
        try:
            with Client(url) as client:
                while True:
                    self._once(self._random.choices(calls, weights)[0], client)
        except (_Over, RegistryUnreachable, urllib3.exceptions.HTTPError):
            self.tally.in_doubt += any(len(digests) > 1 for digests in self.tags.values())
        except BaseException as error:
            self.tally.lost.append(f"{type(error).__name__}: {error}")

    def settle(self, url: str) -> None:
        """Look at all that was promised, each byte of it, and clear up what was in doubt."""
        with Client(url) as client:
            for tag, possible in self.tags.items():
                try:
                    pulled = self._pulled(client, tag)
                except (BlobUnknown, ManifestUnknown) as error:
                    self.tally.lost.append(f"{self.repository}:{tag} is broken: {error}")
                    pulled = None
                if pulled not in possible:
                    self.tally.lost.append(f"{self.repository}:{tag} is {pulled}, not {possible}")
                self.tags[tag] = frozenset({pulled})

    def _once(self, call: Callable[[Client], None], client: Client) -> None:
        try:
            call(client)
        except RegistryRefused as error:
            if error.status >= 500 and self._power_cuts:
                raise _Over from error
            # pins are short here: gc may take a layer before the manifest that needs it comes
            if error.status != 404:
                raise
            self.tally.refused += 1

    # -- what customers do; before each request they tick

    def _push(self, client: Client) -> None:
        """As `docket push` does: ask for diff_ids, upload what is missing."""
        pushed = self._some_image()
        self._tick()
        layers = client.missing(self.repository, [Digest.of(layer) for layer in pushed.plain])
        for plain, layer in zip(pushed.plain, pushed.layers, strict=True):
            if Digest.of(plain) not in layers:
                self._tick()
                client.put_blob(self.repository, [layer[:1000], layer[1000:]])
        self._tick()
        client.put_blob(self.repository, [pushed.config])
        self._put(client, self._random.choice(TAGS), pushed.content)

    def _push_as_docker_does(self, client: Client) -> None:
        """HEAD first, then POST and PUT of what isn't there."""
        pushed = self._some_image()
        for blob in pushed.blobs:
            self._tick()
            if client.blob_size(self.repository, Digest.of(blob)) is None:
                self._tick()
                client.put_blob(self.repository, [blob])
        self._put(client, self._random.choice(TAGS), pushed.content)

    def _retag(self, client: Client) -> None:
        source, target = self._random.sample(TAGS, 2)
        if self._there(source):
            self._tick()
            remote_manifest = client.manifest(Reference(self.repository, source))
            self._put(client, target, remote_manifest.content)

    def _pull(self, client: Client) -> None:
        tag = self._random.choice(TAGS)
        pulled = self._pulled(client, tag)
        if frozenset({pulled}) != self.tags[tag]:
            raise Lost(f"{self.repository}:{tag} is {pulled}, not {self.tags[tag]}")
        if pulled and self._random.random() < 0.2:
            self._tick()
            client.torrent(Reference(self.repository, tag))
        self.tally.pulled += 1

    def _delete_tag(self, client: Client) -> None:
        tag = self._random.choice(TAGS)
        if self._there(tag):
            self.tags[tag] |= {None}
            self._tick()
            client.delete(Reference(self.repository, tag))
            self.tags[tag] = frozenset({None})
            self.tally.deleted += 1

    def _delete_manifest(self, client: Client) -> None:
        digest = self._there(self._random.choice(TAGS))
        if digest:
            pointing = [tag for tag, possible in self.tags.items() if digest in possible]
            for tag in pointing:
                self.tags[tag] |= {None}
            self._tick()
            client.delete(Reference(self.repository, digest))
            for tag in pointing:
                self.tags[tag] = frozenset({None})
            self.tally.deleted += 1

    def _collect(self, client: Client) -> None:
        self._tick()
        self.tally.swept += client.gc(dry_run=False, grace=0)["blobs"]

    def _go_on_uploading(self, client: Client) -> None:
        """The next part of an upload that goes on across restarts."""
        with urllib3.PoolManager(retries=False) as pool:
            if not self._upload:
                self._tick()
                path = f"/v2/{self.repository}/blobs/uploads/"
                begun = pool.request("POST", f"{client.url}{path}")
                self._uploaded = _offset(begun)
                self._upload = begun.headers["Location"]
                return
            self._tick()
            answer = pool.request("GET", f"{client.url}{self._upload}")
            if answer.status == 404 and self._power_cuts:
                self._upload = ""
                return
            offset = _offset(answer)
            if offset < self._uploaded and not self._power_cuts:
                raise Lost(f"{self._uploaded} bytes were taken, {offset} are there")
            self._tick()
            if offset == len(LONG_UPLOAD):
                self._finish_uploading(pool, client.url)
                return
            headers = {"Content-Range": f"{offset}-{min(offset + PART, len(LONG_UPLOAD)) - 1}"}
            url = f"{client.url}{self._upload}"
            part = LONG_UPLOAD[offset : offset + PART]
            self._uploaded = _offset(pool.request("PATCH", url, body=part, headers=headers))

    def _finish_uploading(self, pool: urllib3.PoolManager, url: str) -> None:
        path, self._upload = self._upload, ""
        done = pool.request("PUT", f"{url}{path}?digest={Digest.of(LONG_UPLOAD)}")
        if done.status >= 400 and self._power_cuts:
            return  # bytes that were never synced are not what they were, and were refused
        if done.status != 201:
            raise Lost(f"an upload in parts ended with {done.status}: {done.data!r}")
        self.tally.resumed += 1

    # -- inside

    def _put(self, client: Client, tag: str, content: bytes) -> None:
        digest = Digest.of(content)
        before = self.tags[tag]
        self.tags[tag] = before | {digest}
        self._tick()
        try:
            client.put_manifest(Reference(self.repository, tag), content, manifest.OCI_MANIFEST)
        except RegistryRefused as error:
            if error.status < 500:
                self.tags[tag] = before
            raise
        self.tags[tag] = frozenset({digest})
        self.tally.pushed += 1

    def _pulled(self, client: Client, tag: str) -> Digest | None:
        """What *tag* points to, once each of its blobs was read and is right."""
        self._tick()
        try:
            remote_manifest = client.manifest(Reference(self.repository, tag))
        except ManifestUnknown:
            return None
        parsed = manifest.parse(remote_manifest.content, content_type=remote_manifest.media_type)
        assert isinstance(parsed, manifest.Manifest)
        for child in (parsed.config, *parsed.layers):
            self._tick()
            client.read_blob(self.repository, child)
        return remote_manifest.digest

    def _there(self, tag: str) -> Digest | None:
        (digest,) = self.tags[tag]
        return digest

    def _some_image(self) -> Image:
        shared = tuple(sorted(self._random.sample(range(SHARED_LAYERS), 2)))
        own = f"{self.repository} {self._random.randrange(8)}"
        return picture(shared, own, self._random.choice(SIZES))


def at_work(customers: list[Customer], url: str) -> list[threading.Thread]:
    """Each customer on a thread of its own."""
    threads = [threading.Thread(target=customer.work, args=(url,)) for customer in customers]
    for thread in threads:
        thread.start()
    return threads


def _offset(answer: urllib3.BaseHTTPResponse) -> int:
    """How far an upload is, by the answer's Range."""
    if answer.status >= 500:
        raise RegistryRefused("an upload", status=answer.status, message=str(answer.data))
    if answer.status not in (202, 204):
        raise Lost(f"an upload answered {answer.status}: {answer.data!r}")
    last = int(answer.headers["Range"].rpartition("-")[2])
    return last + 1 if last else 0  # an empty session says 0-0
