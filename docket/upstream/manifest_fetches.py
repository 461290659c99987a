"""Fetches of manifests from upstreams: each once, however many ask, into the store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from docket.errors import InvalidInput, ManifestUnknown, UpstreamError, UpstreamUnavailable
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.store import Store
from docket.upstream.source import Source, UpstreamManifest

_AT_ONCE = 16

_Key = tuple[str, str | Digest]


class ManifestFetches:
    """The manifests that are being fetched or compared, `_AT_ONCE` at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._running: dict[_Key, Future[Digest]] = {}
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="upstream-manifest")

    def close(self) -> None:
        """Begin no other fetch; those that run end with their connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def start(
        self,
        source: Source,
        repository: str,
        target: str | Digest,
        held: Digest | None,
        *,
        on_fetched: Callable[[], None],
    ) -> Future[Digest]:
        """The digest that *target* has upstream, once the store has that manifest.

        *held* is what the tag points to here. All who ask meanwhile share the fetch. *on_fetched*
        is called when it has succeeded, even if nobody waits any more.
        """

        def run() -> Digest:
            digest = self._run(source, repository, target, held)
            on_fetched()
            return digest

        key = repository, target
        with self._lock:
            future = self._running.get(key)
            if future is None:
                try:
                    future = self._threads.submit(run)
                except RuntimeError as error:
                    name = source.upstream.name
                    raise UpstreamUnavailable(name, "this registry is stopping") from error
                self._running[key] = future
        future.add_done_callback(lambda _future: self._end(key, future))
        return future

    def _end(self, key: _Key, future: Future[Digest]) -> None:
        with self._lock:
            if self._running.get(key) is future:
                del self._running[key]

    def _run(
        self, source: Source, repository: str, target: str | Digest, held: Digest | None
    ) -> Digest:
        name = source.upstream.repository(repository)
        if isinstance(target, str) and held:
            digest = source.digest_of(name, target)
            if digest == held:
                return held
        fetched = source.manifest(name, target)
        self._keep(source, repository, target, fetched)
        return fetched.digest

    def _keep(
        self, source: Source, repository: str, target: str | Digest, fetched: UpstreamManifest
    ) -> None:
        """Into the store, unless it is there just so: a write costs a sync."""
        tags = [target] if isinstance(target, str) else []
        with suppress(ManifestUnknown):
            if self._store.manifests.get(repository, target).digest == fetched.digest:
                return
        try:
            parsed = manifest.parse(fetched.content, content_type=fetched.media_type)
        except InvalidInput as error:
            raise UpstreamError(source.upstream.name, f"it sent no manifest: {error}") from error
        self._store.manifests.put(
            repository,
            fetched.content,
            parsed,
            tags=tags,
            algorithm=fetched.digest.algorithm,
            complete=False,
        )
