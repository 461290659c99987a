"""The real server in processes that start fast enough to be killed by the thousand.

`docket registry` takes 0.3 s to start, and most of that is Python importing modules. So a process
that has imported them, and done nothing else, forks a server for each start: no thread, no LMDB
environment and no libtorrent session exists before the fork, and what runs behind it is
`docket.daemon.registry.serve`, all that `docket registry` runs.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import urllib3

from docket.daemon.registry import ServerOptions, serve

_READY_SECONDS = 30.0

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([__name__])


@dataclass(slots=True)
class Server:
    """A registry process at *url*; *start_seconds* passed from its spawn until it was ready."""

    url: str
    start_seconds: float
    running: BaseProcess

    def kill(self) -> None:
        """SIGKILL; returning means that the process and its locks are gone."""
        self.running.kill()
        self.running.join()


@contextmanager
def server(location: Path, *, pin_seconds: float) -> Iterator[Server]:
    """A server on a free port of the loopback address, ready; killed on the way out."""
    options = ServerOptions(location, bind="127.0.0.1", port=0, pin_seconds=pin_seconds)
    receiving, sending = _forks.Pipe(duplex=False)
    began = time.perf_counter()
    running = _forks.Process(target=_serve, args=(options, sending), daemon=True)
    running.start()
    sending.close()
    try:
        url = _url(receiving)
        with urllib3.PoolManager(retries=False) as pool:
            assert pool.request("GET", f"{url}/readyz").status == 200
        started = Server(url, time.perf_counter() - began, running)
        yield started
    finally:
        receiving.close()
        running.kill()
        running.join()


def _serve(options: ServerOptions, ready: Connection) -> None:
    serve(options, on_ready=ready.send)


def _url(ready: Connection) -> str:
    if not ready.poll(_READY_SECONDS):
        raise AssertionError(f"the server is not ready after {_READY_SECONDS} s")
    try:
        return str(ready.recv())
    except EOFError:
        raise AssertionError("the server ended before it was ready") from None
