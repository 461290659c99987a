"""Short questions to the container engine, without its SDK: an idle agent has no room for that."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from docket.engine_address import UNIX, ContextTls, engine_address
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


def engine_summary(variables: Mapping[str, str] = os.environ) -> EngineSummary:
    """What the engine is that *variables* lead to. Raises `EngineError`."""
    query = _Query(variables)
    info = query.get("/info", seconds=_SUMMARY_SECONDS)
    status = info.get("DriverStatus") or []
    return EngineSummary(
        name="podman" if "BuildahVersion" in info else "docker",
        version=str(info.get("ServerVersion") or ""),
        is_containerd_store=any(_CONTAINERD_STORE in row for row in status),
    )


def images_in_use(variables: Mapping[str, str] = os.environ) -> set[tuple[Digest, ...]]:
    """The images of all containers, stopped ones too, each by its layers' diff_ids.

    An engine names images by their configuration or by their manifest; layers are the same in both.
    Raises `EngineError`.
    """
    query = _Query(variables)
    rows = query.get("/containers/json?all=true")
    names = {str(row.get("ImageID") or row.get("Image") or "") for row in rows}
    in_use = set()
    for name in names - {""}:
        attributes = query.get(f"/images/{quote(name, safe=':')}/json", is_optional=True)
        layers = (attributes.get("RootFS") or {}).get("Layers") or []
        try:
            in_use.add(tuple(Digest.parse(text) for text in layers))
        except InvalidDigest as error:
            raise EngineError(f"the engine names a layer {error}") from error
    return in_use - {()}


class _Query:
    """Where the engine is, and requests to it."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._address = engine_address(variables)
        self._tls = self._address.tls
        if self._address.is_from_host_variable:
            self._tls = _tls_of(variables)

    def get(self, path: str, *, is_optional: bool = False, seconds: float = _SECONDS) -> Any:
        """The engine's answer; an empty one when what *is_optional* is not there."""
        url = self._address.url
        try:
            with closing(self._connection(seconds)) as connection:
                connection.request("GET", path, headers={"Host": "docker"})
                response = connection.getresponse()
                content = response.read(_MAX_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"the engine at {url} doesn't answer: {error}") from error
        if response.status == http.client.NOT_FOUND and is_optional:
            return {}
        if response.status != http.client.OK:
            raise EngineError(f"the engine at {url} answers {path} with {response.status}")
        try:
            return json.loads(content)
        except ValueError as error:
            raise EngineError(f"the engine at {url} answers {path} without JSON") from error

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        url, files = self._address.url, self._tls
        if url.startswith(UNIX):
            return _UnixConnection(url.removeprefix(UNIX), seconds)
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _DOCKER_PORT
        if files is None:
            return http.client.HTTPConnection(host, port, timeout=seconds)
        context = ssl.create_default_context(cafile=str(files.ca) if files.ca else None)
        if not files.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if files.certificate and files.key:
            context.load_cert_chain(files.certificate, files.key)
        return http.client.HTTPSConnection(host, port, timeout=seconds, context=context)


def _tls_of(variables: Mapping[str, str]) -> ContextTls | None:
    """The files that DOCKER_CERT_PATH names beside DOCKER_HOST, as for the docker command."""
    folder = variables.get("DOCKER_CERT_PATH")
    verify = bool(variables.get("DOCKER_TLS_VERIFY"))
    if not (folder or verify):
        return None
    files = Path(folder) if folder else Path.home() / ".docker"
    return ContextTls(files / "ca.pem", files / "cert.pem", files / "key.pem", verify)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
