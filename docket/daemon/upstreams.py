"""The upstreams of a registry's process: they end with it, soon."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from docket.rate_limit import RateLimiter
from docket.store import Store
from docket.upstream.credentials import CredentialFile
from docket.upstream.names import Upstream
from docket.upstream.upstreams import Upstreams


@contextlib.contextmanager
def running_upstreams(
    store: Store,
    upstreams: Sequence[Upstream],
    *,
    auth: Path | None,
    ttl: float,
    limiter: RateLimiter,
    stop: threading.Event,
) -> Iterator[Upstreams | None]:
    """The registries whose images are fetched, until *stop* is set; None where there are none.

    Raises `InvalidOption` for a file *auth* that can't be used.
    """
    if not upstreams:
        yield None
        return
    running = Upstreams(
        store, upstreams, credentials=CredentialFile(auth), ttl=ttl, limiter=limiter
    )

    def end() -> None:
        stop.wait()
        running.stop()

    # requests that wait for an upstream end with it: they are not to delay the process's end
    threading.Thread(target=end, name="end-upstreams", daemon=True).start()
    try:
        yield running
    finally:
        running.close()
