"""What a host keeps: the last releases, as much as there is room for, and what containers use."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

from docket.agent.host.engine_query import images_in_use
from docket.errors import DocketError, EngineUnreachable, NotFound, summary
from docket.oci.digest import Digest
from docket.oci.manifest import Index, parse_config
from docket.store import Retention, Store, Tagged

GRACE_SECONDS = 3600.0
"""How long a layer stays that no tag names yet: its image may still be on its way."""

_PAUSE_SECONDS = 3600.0
_FIRST_SECONDS = 60.0
_NICE = 10

log = logging.getLogger("docket.agent")


@dataclass(frozen=True, slots=True)
class KeepPolicy:
    """Keep the last *releases* of each repository, in *space* bytes or a *share* of the disk.

    None is no limit. The newest release of a repository always stays.
    """

    releases: int | None = None
    space: int | None = None
    share: float | None = None

    @property
    def is_limited(self) -> bool:
        """Whether anything ever goes."""
        return (self.releases, self.space, self.share) != (None, None, None)

    def room(self, store: Store) -> int | None:
        """The bytes that the store may have; None is no limit."""
        total = shutil.disk_usage(store.location).total
        limits = [self.space, None if self.share is None else int(total * self.share)]
        return min((limit for limit in limits if limit is not None), default=None)


class HostRetention:
    """Removes what the policy doesn't keep: on a thread of low priority, now and then."""

    def __init__(
        self,
        store: Store,
        policy: KeepPolicy,
        on_swept: Callable[[], None],
        *,
        in_use: Callable[[], set[tuple[Digest, ...]]] = images_in_use,
        grace: float = GRACE_SECONDS,
    ) -> None:
        """*on_swept* is called when images have gone; *in_use* gives what containers use."""
        self._store = store
        self.policy = policy
        self._on_swept = on_swept
        self._in_use = in_use
        self._grace = grace
        self._wanted = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Something came, or the policy changed: look again soon."""
        self._wanted.set()

    def close(self) -> None:
        """Remove nothing more."""
        self._stop.set()
        self._wanted.set()

    def run_once(self) -> list[str]:
        """Remove what the policy doesn't keep; the names of the tags that went.

        Raises `EngineError` when the engine doesn't say what its containers use.
        """
        policy, maintenance = self.policy, self._store.maintenance
        if not policy.is_limited:
            return []
        used = self._used_names()
        protected = tuple(sorted(used))
        gone = maintenance.gc(
            grace=self._grace, retention=Retention(policy.releases, protected)
        ).tags
        room = policy.room(self._store)
        for release in self._candidates(used) if room is not None else ():
            if self._store.blobs.total_size() <= (room or 0):
                break
            for tag in release:
                with suppress(NotFound):
                    self._store.manifests.delete_tag(tag.repository, tag.tag)
                    gone.append(f"{tag.repository}:{tag.tag}")
            maintenance.gc(grace=self._grace)
        return gone

    # -- inside

    def _run(self) -> None:
        # threads are tasks of their own in Linux: the process keeps its priority
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        wait = _FIRST_SECONDS
        while not self._stop.wait(wait):
            try:
                self._sweep()
            except DocketError as error:
                log.warning("nothing was removed: %s", summary(error))
            except Exception:  # the outermost edge of a thread that must not end
                log.exception("retention failed; trying again")
            self._wanted.wait(_PAUSE_SECONDS if self.policy.is_limited else None)
            self._wanted.clear()
            # pulls come in crowds: one look after them is enough
            wait = _FIRST_SECONDS

    def _sweep(self) -> None:
        if gone := self.run_once():
            log.info("removed %d tags to keep within the limits: %s", len(gone), ", ".join(gone))
            self._on_swept()

    def _candidates(self, used: set[str]) -> Iterable[list[Tagged]]:
        """Releases that may go, each as its tags, the one used longest ago first."""
        releases: list[list[Tagged]] = []
        for _, group in groupby(self._store.manifests.tagged(), key=lambda tag: tag.repository):
            by_digest: dict[Digest, list[Tagged]] = {}
            for tag in sorted(group, key=lambda tag: tag.moved, reverse=True):
                by_digest.setdefault(tag.digest, []).append(tag)
            releases += list(by_digest.values())[1:]
        free = (
            release
            for release in releases
            if not used & {f"{tag.repository}:{tag.tag}" for tag in release}
        )
        return sorted(free, key=lambda release: max(tag.moved for tag in release))

    def _used_names(self) -> set[str]:
        """The tags whose images containers of the engine use."""
        try:
            in_use = self._in_use()
        except EngineUnreachable as error:
            if os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT"):
                raise
            log.debug("no engine: %s", summary(error))
            return set()
        return {
            f"{tag.repository}:{tag.tag}"
            for tag in self._store.manifests.tagged()
            if in_use & set(self._layers(tag))
        }

    def _layers(self, tag: Tagged) -> Iterable[tuple[Digest, ...]]:
        """The diff_ids of the images that *tag* points to, as far as they are here."""
        with suppress(NotFound):
            parsed = self._store.manifests.get(tag.repository, tag.digest).parsed
            digests = [tag.digest]
            if isinstance(parsed, Index):
                digests = [child.digest for child in parsed.manifests]
            for digest in digests:
                with suppress(NotFound):
                    image = self._store.manifests.get(tag.repository, digest).parsed
                    if not isinstance(image, Index):
                        config = self._store.blobs.read(image.config.digest)
                        yield parse_config(config).diff_ids


def parse_space(text: str) -> KeepPolicy:
    """``20G``, ``500M`` or ``30%``, as a policy. Raises ValueError."""
    units = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100
            if 0 < share <= 1:
                return KeepPolicy(share=share)
        else:
            number = text.upper().removesuffix("B")
            size = int(float(number.rstrip("KMGT")) * units.get(number[-1:], 1))
            if size > 0:
                return KeepPolicy(space=size)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{text!r} is not a size such as 20G, or a share of the disk such as 30%")
