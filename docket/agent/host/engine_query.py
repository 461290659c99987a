"""Short questions to the container engine, without its SDK: an idle agent has no room for that."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from docket.engine_address import UNIX, EngineAddress, engine_address
from docket.errors import EngineError, InvalidDigest
from docket.oci.digest import Digest

_SECONDS = 30.0
_SUMMARY_SECONDS = 3.0
"""What may take this long is shown to the registry with each change of the host."""

_MAX_ANSWER = 64 << 20
_DOCKER_PORT = 2375
_CONTAINERD_STORE = "io.containerd.snapshotter.v1"


@dataclass(frozen=True, slots=True)
class EngineSummary:
    """The engine of this host: *name* is ``docker`` or ``podman``."""

    name: str
    version: str
    is_containerd_store: bool

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


def engine_summary() -> EngineSummary:
    """What the engine is. Raises `EngineError`."""
    address = engine_address()
    info = _get(address, "/info", seconds=_SUMMARY_SECONDS)
    status = info.get("DriverStatus") or []
    return EngineSummary(
        name="podman" if "BuildahVersion" in info else "docker",
        version=str(info.get("ServerVersion") or ""),
        is_containerd_store=any(_CONTAINERD_STORE in row for row in status),
    )


def images_in_use() -> set[tuple[Digest, ...]]:
    """The images of all containers, stopped ones too, each by its layers' diff_ids.

    An engine names images by their configuration or by their manifest; layers are the same in both.
    Raises `EngineError`.
    """
    address = engine_address()
    rows = _get(address, "/containers/json?all=true")
    names = {str(row.get("ImageID") or row.get("Image") or "") for row in rows}
    in_use = set()
    for name in names - {""}:
        attributes = _get(address, f"/images/{quote(name, safe=':')}/json", is_optional=True)
        layers = (attributes.get("RootFS") or {}).get("Layers") or []
        try:
            in_use.add(tuple(Digest.parse(text) for text in layers))
        except InvalidDigest as error:
            raise EngineError(f"the engine names a layer {error}") from error
    return in_use - {()}


def _get(
    address: EngineAddress, path: str, *, is_optional: bool = False, seconds: float = _SECONDS
) -> Any:
    """The engine's answer; nothing when what *is_optional* is not there."""
    try:
        with closing(_connection(address, seconds)) as connection:
            connection.request("GET", path, headers={"Host": "docker"})
            response = connection.getresponse()
            content = response.read(_MAX_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        raise EngineError(f"the engine at {address.url} doesn't answer: {error}") from error
    if response.status == http.client.NOT_FOUND and is_optional:
        return {}
    if response.status != http.client.OK:
        raise EngineError(f"the engine at {address.url} answers {path} with {response.status}")
    try:
        return json.loads(content)
    except ValueError as error:
        raise EngineError(f"the engine at {address.url} answers {path} without JSON") from error


def _connection(address: EngineAddress, seconds: float) -> http.client.HTTPConnection:
    if address.url.startswith(UNIX):
        return _UnixConnection(address.url.removeprefix(UNIX), seconds)
    parts = urlsplit(address.url)
    host, port = parts.hostname or "", parts.port or _DOCKER_PORT
    if address.tls is None:
        return http.client.HTTPConnection(host, port, timeout=seconds)
    files = address.tls
    context = ssl.create_default_context(cafile=str(files.ca) if files.ca else None)
    if files.certificate and files.key:
        context.load_cert_chain(files.certificate, files.key)
    return http.client.HTTPSConnection(host, port, timeout=seconds, context=context)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
