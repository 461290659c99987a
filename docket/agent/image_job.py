"""One image on its way to this host: who wants which layer, the fetch, and seeding after it."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from docket.agent.arriving import ArrivingLayer
from docket.errors import DocketError, NotFound, SwarmError
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor
from docket.progress import LayerProgress
from docket.remote.client import Client
from docket.store import Store
from docket.torrent.metainfo import Metainfo
from docket.torrent.peer.swarm import Swarm
from docket.transfer.fetch import Fetch, Fetched
from docket.transfer.options import TransferOptions
from docket.transfer.plan import FetchRequest
from docket.transfer.pull import store_small_blobs, tag_locally
from docket.transfer.resolve import ResolvedImage

_LEAST_WAIT_SECONDS = 0.05
_LEAST_IDLE_SECONDS = 1.0
"""From `ImageJob.touch` to the wish that follows it."""

_MAX_NOTES = 64

log = logging.getLogger("docket.agent")


@dataclass(slots=True)
class JobProgress:
    """How far an image is, in bytes of layers; *rate* in bytes a second."""

    total: int = 0
    done: int = 0
    held: int = 0
    from_registry: int = 0
    from_hosts: int = 0
    rate: int = 0


@dataclass(frozen=True, slots=True)
class Tools:
    """What all jobs of an agent share."""

    client: Client
    store: Store
    swarm: Swarm
    options: TransferOptions
    idle_seconds: float
    on_held: Callable[[], None]
    """Called when this host holds an image that it did not hold before."""


@dataclass(slots=True)
class _State:
    """What the job's thread and its callers share, under one condition."""

    pending: dict[Digest, Descriptor] = field(default_factory=dict)
    arriving: dict[Digest, ArrivingLayer] = field(default_factory=dict)
    done: set[Digest] = field(default_factory=set)
    error: DocketError | None = None
    is_closed: bool = False
    is_seeding: bool = False


class ImageJob:
    """Fetches the layers of *image* that somebody requests, then serves them to other hosts.

    One thread does all of it; it ends when nobody has wanted the image for *idle_seconds*.
    """

    def __init__(
        self, tools: Tools, image: ResolvedImage, on_end: Callable[[ImageJob], None]
    ) -> None:
        self.image = image
        self.tracker = ""
        """The URL of the image's tracker, once its torrent is here."""
        self._tools = tools
        self._on_end = on_end
        self._state = _State()
        self._changed = threading.Condition()
        self._progress: dict[str, LayerProgress] = {}
        self._fetched = Fetched()
        self._notes: deque[str] = deque(maxlen=_MAX_NOTES)
        self._used = time.monotonic()
        self._with_others = False
        self._max_download = 0
        self._thread = threading.Thread(
            target=self._run, name=f"image-{image.digest.short}", daemon=True
        )
        self._thread.start()

    # -- callers

    def layer(self, digest: Digest) -> ArrivingLayer | None:
        """The layer on its way in, which is fetched from now on; None if the store has it."""
        store = self._tools.store
        with self._changed:
            self._used = time.monotonic()
            if digest in self._state.arriving:
                return self._state.arriving[digest]
            if store.blobs.has(digest):
                return None
            # engines ask for what they lack from the base up: what lies above comes along
            self._want(self._from(digest))
            return self._state.arriving.get(digest)

    def want_all(self, *, with_others: bool = False, max_download: int = 0) -> None:
        """Fetch all layers that this host lacks, as other hosts begin to do *with_others*.

        At most *max_download* bytes a second come; 0 leaves the agent's own limit.
        """
        self._with_others = with_others
        self._max_download = max_download
        self.want(self.image.layers)

    def want(self, layers: Iterable[Descriptor]) -> None:
        """Fetch those of *layers* that this host lacks."""
        with self._changed:
            self._used = time.monotonic()
            self._want(layers)

    def wait(self, seconds: float) -> bool:
        """Whether all layers of the image are here, after *seconds* at most.

        Raises the error that has ended the fetch.
        """
        with self._changed:
            self._changed.wait_for(self._is_settled, seconds)
            if self._state.error:
                raise self._state.error
            return self._is_settled()

    def is_arriving(self, digest: Digest) -> bool:
        """Whether the layer is being fetched."""
        return digest in self._state.arriving

    @property
    def is_over(self) -> bool:
        """Whether the job takes no more wishes: it failed, or was closed."""
        return self._state.is_closed or self._state.error is not None

    def close(self) -> None:
        """Stop fetching and seeding."""
        with self._changed:
            self._state.is_closed = True
            self._changed.notify_all()

    def join(self, seconds: float) -> None:
        """Wait for the job's thread."""
        self._thread.join(seconds)

    def has(self, layers: Iterable[Descriptor]) -> bool:
        """Whether the store has all of *layers*."""
        return all(self._tools.store.blobs.has(layer.digest) for layer in layers)

    def served(self) -> list[Digest]:
        """The layers that were fetched, and are served to other hosts."""
        with self._changed:
            return list(self._fetched.sources)

    @property
    def has_failed(self) -> bool:
        """Whether an error ended it."""
        return self._state.error is not None

    def touch(self) -> bool:
        """Whether the job takes wishes; if so, it does for a while."""
        with self._changed:
            self._used = time.monotonic()
            return not self.is_over

    def fetched(self) -> Fetched:
        """Where the layers came from that were fetched until now."""
        with self._changed:
            return copy.deepcopy(self._fetched)

    def layer_rows(self) -> list[LayerProgress]:
        """How far each layer is that was or is fetched."""
        with self._changed:
            return list(self._progress.values())

    def notes(self) -> list[str]:
        """What the fetch said for people; the last ones."""
        return list(self._notes)

    def progress(self) -> JobProgress:
        """How far it is."""
        sizes = {layer.digest: layer.size for layer in self.image.layers}
        has = self._tools.store.blobs.has
        here = {digest for digest in sizes if has(digest)}
        with self._changed:
            moving = list(self._progress.values())
        fetched = self._state.arriving.keys() | self._state.done
        seed = sum(count.registry for count in self._fetched.blocks.values())
        return JobProgress(
            total=sum(sizes.values()),
            done=sum(sizes[digest] for digest in here)
            + sum(row.done for row in moving if row.done < row.total),
            held=sum(size for digest, size in sizes.items() if digest in here - fetched),
            from_registry=self._fetched.http_bytes + seed,
            from_hosts=max(self._fetched.swarm_bytes - seed, 0),
            rate=int(max((row.rate for row in moving if row.done < row.total), default=0.0)),
        )

    # -- the fetch's observer and progress

    def on_torrent(self, metainfo: Metainfo, folder: Path) -> None:
        """The pieces of the layers are known: bytes can be read as they come."""
        self.tracker = metainfo.announce
        for file in metainfo.files:
            if file.digest and (layer := self._state.arriving.get(file.digest)):
                layer.begin(folder / file.path, metainfo.hashes(file), metainfo.piece_length)

    def on_adopted(self, digest: Digest, path: Path) -> None:
        """The store has the layer."""
        with self._changed:
            if layer := self._state.arriving.get(digest):
                layer.adopted(path)
            self._state.done.add(digest)
            self._changed.notify_all()

    def layer_progress(self, progress: LayerProgress) -> None:
        """What the fetch says of one layer."""
        with self._changed:
            self._progress[progress.name] = progress

    def note(self, text: str) -> None:
        """What the fetch says to people."""
        log.info("%s: %s", self.image.reference, text)
        self._notes.append(text)

    # -- inside

    def _from(self, digest: Digest) -> Sequence[Descriptor]:
        layers = self.image.layers
        numbers = [number for number, layer in enumerate(layers) if layer.digest == digest]
        return layers[numbers[0] :] if numbers else ()

    def _want(self, layers: Iterable[Descriptor]) -> None:
        state, has = self._state, self._tools.store.blobs.has
        for layer in layers:
            if layer.digest not in state.arriving and not has(layer.digest):
                state.arriving[layer.digest] = ArrivingLayer(layer.digest, layer.size)
                state.pending[layer.digest] = layer
        self._changed.notify_all()

    def _is_settled(self) -> bool:
        state = self._state
        if state.error or state.is_closed:
            return True
        return not state.pending and not state.arriving

    def _run(self) -> None:
        try:
            self._serve()
        except DocketError as error:
            log.warning("%s could not be fetched: %s", self.image.reference, error)
            self._end(error)
        except Exception as error:  # the outermost edge of a thread
            log.exception("%s could not be fetched", self.image.reference)
            self._end(DocketError(f"unexpected: {type(error).__name__}: {error}"))
        else:
            self._end(None)

    def _serve(self) -> None:
        tools, image = self._tools, self.image
        with tools.store.downloads.open(image.digest) as download:
            store_small_blobs(tools.store, image)
            info_hash: bytes | None = None
            try:
                while wanted := self._next(info_hash):
                    fetch = Fetch(
                        tools.client,
                        tools.store,
                        self._options(),
                        _Quiet(self),
                        swarm=tools.swarm,
                        watcher=self,
                    )
                    fetched = fetch.run(self._request(wanted), download)
                    info_hash = fetched.info_hash or info_hash
                    self._count(fetched)
                    tag_locally(tools.store, image)
                    self._clear(wanted)
                    tools.on_held()
            finally:
                if info_hash:
                    with suppress(SwarmError):
                        tools.swarm.forget(info_hash)

    def _options(self) -> TransferOptions:
        """The agent's options, with the limit of the order that wants the image, if it is lower."""
        options = self._tools.options
        limits = [limit for limit in (options.max_download, self._max_download) if limit]
        return replace(options, max_download=min(limits, default=0))

    def _request(self, wanted: Sequence[Descriptor]) -> FetchRequest:
        with_others, self._with_others = self._with_others, False
        has = self._tools.store.blobs.has
        held = dict.fromkeys(layer.digest for layer in self.image.layers if has(layer.digest))
        return FetchRequest(
            image=self.image,
            held=[self.image.digest, self.image.config_descriptor.digest, *held],
            wanted=wanted,
            expects_others=with_others,
        )

    def _next(self, info_hash: bytes | None) -> list[Descriptor]:
        """The layers to fetch next; none when the job is idle for too long, or closed."""
        with self._changed:
            while not self._state.is_closed:
                if self._state.pending:
                    wanted = list(self._state.pending.values())
                    self._state.pending.clear()
                    return wanted
                idle_seconds = max(self._tools.idle_seconds, _LEAST_IDLE_SECONDS)
                left = idle_seconds - self._idle(info_hash)
                if left < 0:
                    break
                # a peer that wants something meanwhile only moves the end away
                self._changed.wait(left + _LEAST_WAIT_SECONDS)
            self._state.is_closed = True
        return []

    def _idle(self, info_hash: bytes | None) -> float:
        """Seconds since this host or a peer wanted something of the image."""
        idle = time.monotonic() - self._used
        if info_hash:
            idle = min(idle, self._tools.swarm.idle_seconds(info_hash))
        return idle

    def _count(self, fetched: Fetched) -> None:
        with self._changed:
            total = self._fetched
            total.sources |= fetched.sources
            total.seconds |= fetched.seconds
            total.blocks |= fetched.blocks
            total.swarm_bytes += fetched.swarm_bytes
            total.http_bytes += fetched.http_bytes
            total.verifying += fetched.verifying

    def _clear(self, wanted: Iterable[Descriptor]) -> None:
        with self._changed:
            for layer in wanted:
                self._state.arriving.pop(layer.digest, None)
            self._changed.notify_all()

    def _end(self, error: DocketError | None) -> None:
        with self._changed:
            self._state.is_closed = True
            self._state.error = error
            for layer in self._state.arriving.values():
                layer.fail(error or NotFound(f"the fetch of {self.image.reference} was stopped"))
            self._changed.notify_all()
        self._on_end(self)


class _Quiet:
    """The fetch's progress, kept for reports instead of shown."""

    def __init__(self, job: ImageJob) -> None:
        self._job = job

    def layer(self, progress: LayerProgress) -> None:
        self._job.layer_progress(progress)

    def note(self, text: str) -> None:
        self._job.note(text)
