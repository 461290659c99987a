"""What this host's engines hold, the agent holds too: one file on the disk for each blob."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from docket.agent.content.folder_watch import FolderWatch
from docket.agent.content.stores import ContentStores
from docket.errors import (
    BlobUnknown,
    DigestMismatch,
    DocketError,
    InvalidDigest,
    InvalidInput,
    NotFound,
)
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import MAX_MANIFEST, Manifest
from docket.rate_limit import RateLimiter
from docket.store import Store, Tagged
from docket.store.blobs.unpacking import Stopped

ENGINE = "engine/"
"""What the repositories of images begin with that an engine has and docket never pulled."""

_TAG = "held"

READ_RATE = 100_000_000
"""Bytes a second at which files of engines are read: nobody waits for it."""

_LEAST = 16 * 1024
"""Bytes below which a second copy is cheaper than the syncs that end it."""

_LATER_SECONDS = 0.5
_AGAIN_SECONDS = 600.0
_NICENESS = 19

log = logging.getLogger("docket.agent")


@dataclass(frozen=True, slots=True)
class ContentState:
    """What became of one content store: *problem* is empty where its files are linked."""

    folder: Path
    problem: str


class EngineContent:
    """One thread that follows the content *stores* of engines, at a low priority.

    A blob that the agent fetched and the engine keeps becomes one file; images that the engine has
    whole are taken into the store by links, and leave it when the engine drops them.
    """

    def __init__(
        self,
        store: Store,
        stores: ContentStores,
        *,
        is_arriving: Callable[[Digest], bool],
        on_held: Callable[[], None],
        rate: int = READ_RATE,
    ) -> None:
        """*is_arriving*: whether a blob is being fetched now; it is looked at after that."""
        self._store = store
        self._folders = stores.folders
        self.warnings = stores.warnings
        self._is_arriving = is_arriving
        self._on_held = on_held
        self._limiter = RateLimiter(rate)
        self._stop = threading.Event()
        self._watch = FolderWatch()
        self._reported: set[Path] = set()
        self._damaged: set[Digest] = set()
        self._refused: set[Digest] = set()  # until everything is looked at again
        # image manifests of the engine, by those of their blobs that it doesn't have yet
        self._waiting: dict[Digest, Manifest] = {}
        self._thread = threading.Thread(target=self._run, name="engine-content", daemon=True)

    def begin(self) -> None:
        """Look at all that is there, then at what changes."""
        for warning in self.warnings:
            log.warning("%s", warning)
        self._thread.start()

    def close(self) -> None:
        """Stop, in the middle of a file too."""
        self._stop.set()
        self._watch.wake()
        if self._thread.ident is not None:
            self._thread.join()
        self._watch.close()

    def states(self) -> list[ContentState]:
        """How it is with each content store."""
        return [ContentState(folder, _problem(folder, self._store)) for folder in self._folders]

    # -- inside

    def _run(self) -> None:
        # of this thread alone (setpriority(2), Notes)
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        pending = self._all()
        looked = time.monotonic()
        while not self._stop.is_set():
            pending = self._look_at_all(pending)
            rest = max(looked + _AGAIN_SECONDS - time.monotonic(), 0.0)
            changes = self._watch.wait(_LATER_SECONDS if pending else rest)
            changed = {digest for name in changes.names if (digest := _digest(name))}
            self._damaged -= changed
            pending |= changed
            # another name is that of a folder above, which wasn't there before
            is_incomplete = changes.is_incomplete or len(changed) < len(changes.names)
            if is_incomplete or time.monotonic() >= looked + _AGAIN_SECONDS:
                pending |= self._all()
                looked = time.monotonic()

    def _all(self) -> set[Digest]:
        """Every blob of the engines, and every image that is here because an engine has it."""
        self._refused.clear()
        names: set[str] = set()
        for folder in self._folders:
            if self._watch_folder(folder):
                with suppress(OSError):
                    names.update(path.name for path in folder.iterdir())
        taken = {tag.digest for tag in self._store.manifests.tagged() if _is_taken(tag)}
        return taken | {digest for name in names if (digest := _digest(name))}

    def _watch_folder(self, folder: Path) -> bool:
        """Whether files of *folder* can be linked now."""
        if not self._is_there(folder):
            return False
        if problem := _problem(folder, self._store):
            if folder not in self._reported:
                log.warning("the engine's blobs in %s are not shared: %s", folder, problem)
                self._reported.add(folder)
            return False
        return self._watch.add(folder)

    def _is_there(self, folder: Path) -> bool:
        """Whether *folder* exists; if not, the nearest folder above it is watched."""
        watched = None
        while not folder.exists():
            nearest = next((path for path in folder.parents if path.exists()), None)
            if nearest is None or nearest == watched:
                return False
            # what is made below it before the watch begins is seen by looking once more
            self._watch.add(nearest)
            watched = nearest
        return True

    def _look_at_all(self, pending: Iterable[Digest]) -> set[Digest]:
        """Those that have to be looked at again."""
        again: set[Digest] = set()
        for digest in pending:
            if self._stop.is_set():
                break
            try:
                if not self._look_at(digest):
                    again.add(digest)
            except Stopped:
                break
            except DigestMismatch as error:
                self._damaged.add(Digest.parse(str(error.expected)))
                log.warning("the engine's copy of %s is damaged: %s", digest, error)
            except (DocketError, OSError) as error:
                self._refused.add(digest)
                log.warning("the engine's copy of %s is not shared: %s", digest, error)
            except Exception:  # the outermost edge of a thread that must not end
                log.exception("the engine's copy of %s could not be shared", digest)
        return again

    def _look_at(self, digest: Digest) -> bool:
        """Whether all is done that the blob's arrival or departure needs."""
        path = self._path(digest)
        if path is None:
            self._drop(digest)
            return True
        if self._is_arriving(digest):
            return False
        if digest in self._refused or digest in self._damaged:
            return True
        if self._store.blobs.has(digest):
            self._share(path, digest)
        elif image := _image(path, digest):
            self._waiting[digest] = image
        for number in self._images_with(digest):
            self._take_if_whole(number, self._waiting[number])
        return True

    def _share(self, path: Path, digest: Digest) -> None:
        if path.stat().st_size < _LEAST:
            return
        with suppress(BlobUnknown):
            if saved := self._store.sharing.replace(path, digest, on_block=self._pace):
                log.info("one copy of %s less: %d bytes", digest.short, saved)

    def _images_with(self, digest: Digest) -> list[Digest]:
        """The waiting images that *digest* is a part of, or is."""
        return [
            number
            for number, image in self._waiting.items()
            if number == digest or any(child.digest == digest for child in image.children)
        ]

    def _take_if_whole(self, number: Digest, image: Manifest) -> None:
        """Take an image that the engine has, once all of its blobs are there."""
        has = self._store.blobs.has
        missing = [child.digest for child in image.children if not has(child.digest)]
        paths = {digest: path for digest in missing if (path := self._path(digest))}
        arrive = any(map(self._is_arriving, missing))
        if arrive or len(paths) < len(missing) or self._damaged.intersection(missing):
            return
        for digest, path in paths.items():
            self._store.sharing.adopt(path, digest, on_block=self._pace, stop=self._stop)
        del self._waiting[number]
        if content := _content(self._path(number), number):
            self._store.manifests.put(
                _repository(number), content, image, tags=(_TAG,), complete=False
            )
            log.info("%s is held too: the engine has it", number.short)
            self._on_held()

    def _drop(self, digest: Digest) -> None:
        """The engine doesn't have the blob any more; gc frees it unless others need it."""
        self._waiting.pop(digest, None)
        with suppress(NotFound):
            self._store.manifests.delete(_repository(digest), digest)
            self._on_held()

    def _path(self, digest: Digest) -> Path | None:
        """Where an engine has the blob."""
        if digest.algorithm != "sha256":
            return None
        paths = [folder / digest.hex for folder in self._folders]
        return next((path for path in paths if path.exists()), None)

    def _pace(self, count: int) -> None:
        if self._stop.wait(self._limiter.delay(count)):
            raise Stopped


def _problem(folder: Path, store: Store) -> str:
    """Why files of *folder* can't be linked into the store; empty if they can."""
    try:
        status = folder.stat()
        next(folder.iterdir(), None)
    except OSError as error:
        return error.strerror or str(error)
    if status.st_dev != store.location.stat().st_dev:
        return "it is on another file system than the store, so each blob is there twice"
    return ""


def _is_taken(tag: Tagged) -> bool:
    return tag.repository.startswith(ENGINE) and tag.tag == _TAG


def _repository(digest: Digest) -> str:
    return f"{ENGINE}{digest.hex[:16]}"


def _digest(name: str) -> Digest | None:
    try:
        return Digest.sha256(name)
    except InvalidDigest:
        return None


def _image(path: Path, digest: Digest) -> Manifest | None:
    """The image manifest in the file at *path*, if it is one."""
    content = _content(path, digest)
    if content is None or not content.lstrip().startswith(b"{"):
        return None
    try:
        parsed = manifest.parse(content)
    except InvalidInput:
        return None
    return parsed if isinstance(parsed, Manifest) and parsed.is_image else None


def _content(path: Path | None, digest: Digest) -> bytes | None:
    """The bytes of a small file, if they are what its name says."""
    with suppress(OSError):
        if path and path.stat().st_size <= MAX_MANIFEST:
            content = path.read_bytes()
            return content if Digest.of(content) == digest else None
    return None
