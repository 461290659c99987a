"""Commands' way to the agent of a host: a Unix socket in the store's folder, and its messages.

A request is a line of JSON, ``{"command": …, "arguments": {…}}``, and may bring a file descriptor.
The answer is lines of JSON: ``{"layer": {…}}`` and ``{"note": "…"}`` while it goes on, then
``{"result": {…}}`` or ``{"error": […], "message": "…"}``. Cheap to import: no store, no swarm.
"""

from __future__ import annotations

import array
import dataclasses
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from docket import errors
from docket.errors import DocketError, Stopped, StoreLocked, summary
from docket.progress import LayerProgress, Progress

SOCKET_NAME = "agent.sock"
OWNER = "docket agent"
"""What the store's lock file begins with while an agent owns the store."""

_START_SECONDS = 10.0
_LOOK_SECONDS = 0.05
_MAX_LINE = 64 << 20
_BACKLOG = 64


class AgentConnection:
    """A connection to the agent that owns a store; one command each."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._file = connected.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._file.close()
        self._socket.close()

    def call(
        self,
        command: str,
        arguments: Mapping[str, Any],
        *,
        progress: Progress,
        descriptor: int | None = None,
    ) -> dict[str, Any]:
        """What the agent answers to *command*; it may write to the file *descriptor*.

        Raises the `DocketError` or OSError that the agent ended with, of the same class.
        """
        line = encoded({"command": command, "arguments": dict(arguments)})
        try:
            send_with_descriptor(self._socket, line, descriptor)
            for answer in iter(lambda: self._file.readline(_MAX_LINE), b""):
                row = json.loads(answer)
                if "layer" in row:
                    progress.layer(LayerProgress(**row["layer"]))
                elif "note" in row:
                    progress.note(row["note"])
                elif "error" in row:
                    break
                else:
                    result: dict[str, Any] = row["result"]
                    return result
            else:
                raise Stopped("the command in the agent")
        except (OSError, ValueError) as error:
            raise Stopped(f"the command in the agent ({summary(error)})") from error
        raise _revived(row)


def connect(location: Path) -> AgentConnection | None:
    """A connection to the agent that owns the store at *location*; None when none does.

    An agent that starts is waited for. Raises `StoreLocked` when another user's agent has it.
    """
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            return AgentConnection(_connected(location))
        except PermissionError as error:
            raise StoreLocked(location, f"{OWNER}, which answers its own user alone") from error
        except OSError:
            if time.monotonic() > deadline or not _is_agents(location):
                return None
        time.sleep(_LOOK_SECONDS)


def listening_at(location: Path) -> socket.socket:
    """The listening socket of the agent that owns the store at *location*; its user's alone."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with suppress(FileNotFoundError):
        (location / SOCKET_NAME).unlink()
    # before it is bound, so that the file never has another mode (unix(7))
    os.fchmod(listening.fileno(), 0o600)
    with _short_path(location) as path:
        listening.bind(path)
    listening.listen(_BACKLOG)
    return listening


def encoded(row: Mapping[str, Any]) -> bytes:
    """A line of the channel."""
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def error_row(error: BaseException) -> dict[str, Any]:
    """The line that ends a command with *error*."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    text = summary(error) if isinstance(error, DocketError) else f"{kinds[0]}: {summary(error)}"
    number = error.errno if isinstance(error, OSError) else None
    return {"error": kinds, "message": text, "errno": number}


def layer_row(progress: LayerProgress) -> dict[str, Any]:
    """The line that reports *progress*."""
    return {"layer": dataclasses.asdict(progress)}


def send_with_descriptor(connected: socket.socket, line: bytes, descriptor: int | None) -> None:
    """Send *line*, and with its first byte a file descriptor (unix(7), SCM_RIGHTS)."""
    sent = 0
    if descriptor is not None:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
        sent = connected.sendmsg([line], [rights])
    connected.sendall(line[sent:])


def receive_with_descriptors(connected: socket.socket, count: int) -> tuple[bytes, list[int]]:
    """Up to *count* bytes, and the file descriptors that came with them."""
    descriptors = array.array("i")
    room = socket.CMSG_SPACE(4 * descriptors.itemsize)
    content, rights, _flags, _address = connected.recvmsg(count, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, packed in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(packed[: len(packed) - len(packed) % descriptors.itemsize])
    return content, list(descriptors)


def _connected(location: Path) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short_path(location) as path:
            connected.connect(path)
    except BaseException:
        connected.close()
        raise
    return connected


@contextmanager
def _short_path(location: Path) -> Iterator[str]:
    """The socket's path by way of an open folder: Linux takes 107 bytes for one."""
    folder = os.open(location, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET_NAME}"
    finally:
        os.close(folder)


def _is_agents(location: Path) -> bool:
    """Whether an agent has the store's lock, though its socket doesn't answer yet."""
    try:
        descriptor = os.open(location / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 200, 0).startswith(OWNER.encode())
    else:
        return False
    finally:
        os.close(descriptor)


def _revived(row: Mapping[str, Any]) -> Exception:
    """The agent's error here: of the first of its classes that is known, with its message."""
    if row["errno"]:
        return OSError(row["errno"], os.strerror(row["errno"]))
    for name in row["error"]:
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, DocketError):
            # classes build their messages from data that did not come along
            return kind.__new__(kind, row["message"])
    return DocketError(row["message"])
