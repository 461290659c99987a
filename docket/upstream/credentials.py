"""Credentials for upstream registries, from a docker ``config.json``. They are never logged."""

from __future__ import annotations

import base64
import binascii
import json
import os
import stat
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docket.errors import InvalidOption
from docket.remote.address import basic_authorization
from docket.upstream.names import canonical_name

_MAX_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """*basic* is the value of an Authorization header, *identity_token* an OAuth2 refresh token;
    both are empty for an anonymous client."""

    basic: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


class CredentialFile:
    """The file that --upstream-auth names; it is read again after it has changed."""

    def __init__(self, path: Path | None) -> None:
        """Raises `InvalidOption` for a file that others can read, or that is no config.json."""
        self._path = path
        self._lock = threading.Lock()
        self._read: tuple[object, dict[str, Credentials]] = (None, {})
        if path:
            self._read = self._load(path)

    def get(self, name: str) -> Credentials:
        """The credentials for the registry *name*. Raises `InvalidOption`, as at the start."""
        with self._lock:
            if self._path and self._read[0] != _version(self._path):
                self._read = self._load(self._path)
            return self._read[1].get(name, Credentials())

    def _load(self, path: Path) -> tuple[object, dict[str, Credentials]]:
        version = _version(path)
        try:
            with path.open("rb") as file:
                _check_mode(path, file.fileno())
                content = file.read(_MAX_FILE)
        except OSError as error:
            raise InvalidOption(str(path), f"it can't be read ({error.strerror})") from error
        return version, _parsed(path, content)


def _version(path: Path) -> object:
    with suppress(OSError):
        status = path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode
    return None


def _check_mode(path: Path, descriptor: int) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise InvalidOption(str(path), "it is not a file")
    if status.st_mode & stat.S_IRWXO:
        raise InvalidOption(str(path), f"it has passwords and is open to all; chmod 600 {path}")


def _parsed(path: Path, content: bytes) -> dict[str, Credentials]:
    try:
        plain = json.loads(content)
        auths = plain.get("auths") or {}
        return {_registry(key): _credentials(entry) for key, entry in auths.items() if entry}
    except (ValueError, AttributeError, TypeError, RecursionError):
        # without the cause, which may quote the file
        why = 'it is not a docker config.json, {"auths": {"ghcr.io": {"auth": "…"}}}'
        raise InvalidOption(str(path), why) from None


def _registry(key: str) -> str:
    """The name of the registry of an entry: docker writes ``https://index.docker.io/v1/`` too."""
    host = urlsplit(key).netloc if "://" in key else key.partition("/")[0]
    return canonical_name(host)


def _credentials(entry: dict[str, Any]) -> Credentials:
    user, password = entry.get("username", ""), entry.get("password", "")
    if entry.get("auth"):
        user, _, password = _decoded(entry["auth"]).partition(":")
    if not all(isinstance(text, str) and text.isprintable() for text in (user, password)):
        raise ValueError("not a name and a password")
    token = entry.get("identitytoken") or ""
    if not isinstance(token, str):
        raise TypeError("not a token")
    return Credentials(basic_authorization(user, password) if user else "", token)


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode().rstrip("\0")
    except binascii.Error as error:
        raise ValueError("not base64") from error
