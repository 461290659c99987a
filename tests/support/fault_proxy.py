"""A TCP relay on the loopback address that breaks connections off, as bad networks do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_BLOCK = 1 << 16


@dataclass(slots=True)
class Relay:
    """Counts what goes through; *breaks* connections are cut off after *limit* bytes one way."""

    port: int
    limit: int
    breaks: int
    broken: int = 0
    requests: list[bytes] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def must_break(self, passed: int) -> bool:
        """Whether a connection that let so many bytes pass is to be cut off now."""
        with self.lock:
            due = passed > self.limit and self.broken < self.breaks
            self.broken += due
        return due


@contextmanager
def relay(target: tuple[str, int], *, limit: int, breaks: int) -> Iterator[Relay]:
    """Relay connections to *target*; the first *breaks* that are long enough break off."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        state = Relay(listening.getsockname()[1], limit, breaks)
        accepting = threading.Thread(target=_accept, args=(listening, target, state), daemon=True)
        accepting.start()
        try:
            yield state
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()


def _accept(listening: socket.socket, target: tuple[str, int], state: Relay) -> None:
    with suppress(OSError):  # the listening socket was shut down: no more connections
        while True:
            client, _ = listening.accept()
            server = socket.create_connection(target)
            for source, sink, is_request in ((client, server, True), (server, client, False)):
                pump = threading.Thread(
                    target=_pump, args=(source, sink, state, is_request), daemon=True
                )
                pump.start()


def _pump(source: socket.socket, sink: socket.socket, state: Relay, is_request: bool) -> None:
    passed = 0
    with suppress(OSError):
        while block := source.recv(_BLOCK):
            if is_request:
                state.requests.append(block[:2048])
            passed += len(block)
            if state.must_break(passed):
                break
            sink.sendall(block)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    sink.close()
