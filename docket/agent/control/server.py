"""The agent's side of its Unix socket: commands of this host, each on a thread of its own."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from docket.agent.control.channel import (
    SOCKET_NAME,
    encoded,
    error_row,
    layer_row,
    listening_at,
    receive_with_descriptors,
)
from docket.errors import DocketError, InvalidRequest
from docket.progress import LayerProgress

_MAX_REQUEST = 1 << 20
_MAX_COMMANDS = 32

log = logging.getLogger("docket.agent")


class Caller:
    """The command at the other end: a `Progress` that it shows, and the file that it passed."""

    def __init__(self, connected: socket.socket, descriptor: int | None) -> None:
        self._socket = connected
        self._lock = threading.Lock()
        self.descriptor = descriptor
        self.is_gone = False
        """Whether the command has ended, such as by Ctrl-C."""

    def layer(self, progress: LayerProgress) -> None:
        """Show it."""
        self.send(layer_row(progress))

    def note(self, text: str) -> None:
        """Show it."""
        self.send({"note": text})

    def send(self, row: Mapping[str, Any]) -> None:
        """Send a line; a command that is gone misses nothing."""
        try:
            with self._lock:
                self._socket.sendall(encoded(row))
        except OSError:
            self.is_gone = True

    def look(self) -> bool:
        """Whether it is still there."""
        with suppress(BlockingIOError):
            if not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                self.is_gone = True
        return not self.is_gone


Command = Callable[[Mapping[str, Any], Caller], dict[str, Any]]
"""Does what a command asks, with its arguments; gives the result."""


class Control:
    """Serves *commands* at the socket in the store's folder until it is closed."""

    def __init__(self, location: Path, commands: Mapping[str, Command]) -> None:
        self._path = location / SOCKET_NAME
        self._commands = commands
        self._listening = listening_at(location)
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more commands; those that run see their connections end."""
        self._is_closed = True
        with suppress(FileNotFoundError):
            self._path.unlink()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            for connected in self._connections:
                with suppress(OSError):
                    connected.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                if not self._is_closed:
                    log.exception("the socket for commands failed")
                return
            with self._lock:
                self._connections.add(connected)
            threading.Thread(
                target=self._serve, args=(connected,), name="command", daemon=True
            ).start()

    def _serve(self, connected: socket.socket) -> None:
        with connected:
            descriptors: list[int] = []
            try:
                self._answer(connected, descriptors)
            except OSError as error:
                log.debug("a command went away: %s", error)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
                with self._lock:
                    self._connections.discard(connected)

    def _answer(self, connected: socket.socket, descriptors: list[int]) -> None:
        line = b""
        while not line.endswith(b"\n"):
            content, came = receive_with_descriptors(connected, 65536)
            descriptors += came
            line += content
            if not content or len(line) > _MAX_REQUEST:
                return
        caller = Caller(connected, descriptors[0] if descriptors else None)
        try:
            result = self._run(line, caller)
        except DocketError as error:
            caller.send(error_row(error))
        except Exception as error:  # the outermost edge of a thread
            log.exception("a command failed")
            caller.send(error_row(error))
        else:
            caller.send({"result": result})

    def _run(self, line: bytes, caller: Caller) -> dict[str, Any]:
        request = json.loads(line)
        with self._lock:
            is_full = len(self._connections) > _MAX_COMMANDS
        if is_full:
            raise DocketError(f"the agent runs {_MAX_COMMANDS} commands already; try again")
        command = self._commands.get(request["command"])
        if command is None:
            raise InvalidRequest(f"this agent knows no command {request['command']!r}")
        return command(request["arguments"], caller)
