"""Where the container engine is: found as the docker command finds it, then at podman's sockets."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docket.errors import EngineUnreachable

UNIX = "unix://"

_MAX_CONFIG = 4 << 20
_DEFAULT_CONTEXT = "default"


@dataclass(frozen=True, slots=True)
class ContextTls:
    """The TLS files of a docker context; None where there is none. *verify* checks the server."""

    ca: Path | None
    certificate: Path | None
    key: Path | None
    verify: bool


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """The *url* of an engine, and whether it was named in ``DOCKER_HOST`` or in a context."""

    url: str
    is_from_host_variable: bool = False
    tls: ContextTls | None = None


def engine_address(variables: Mapping[str, str] = os.environ) -> EngineAddress:
    """The engine's address.

    It is ``DOCKER_HOST``; else the docker context that ``DOCKER_CONTEXT`` or ``currentContext`` of
    docker's config.json names; else the first of the usual sockets that answers. Raises
    `EngineUnreachable` with what was tried.
    """
    if host := variables.get("DOCKER_HOST"):
        return EngineAddress(host, is_from_host_variable=True)
    folder = _config_folder(variables)
    context = variables.get("DOCKER_CONTEXT") or _current_context(folder)
    if context and context != _DEFAULT_CONTEXT:
        return _of_context(context, folder)
    return EngineAddress(_answering_socket(usual_sockets(variables)))


def usual_sockets(variables: Mapping[str, str]) -> list[str]:
    """Paths of sockets, in the order of trying: Docker's, rootless and Desktop, then podman's."""
    runtime = variables.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    paths = ["/var/run/docker.sock", f"{runtime}/docker.sock"]
    if home := variables.get("HOME"):
        paths.append(f"{home}/.docker/run/docker.sock")
    return [*paths, f"{runtime}/podman/podman.sock", "/run/podman/podman.sock"]


def socket_refusal(path: str) -> OSError | None:
    """Why nothing can be sent to the socket file *path*; None when it answers."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            return error
    return None


def _answering_socket(paths: list[str]) -> str:
    refusals = []
    for path in paths:
        error = socket_refusal(path)
        if error is None:
            return f"{UNIX}{path}"
        refusals.append(f"{path}: {error.strerror or error}")
    raise EngineUnreachable("the usual sockets", "; ".join(refusals))


def _config_folder(variables: Mapping[str, str]) -> Path | None:
    if folder := variables.get("DOCKER_CONFIG"):
        return Path(folder)
    home = variables.get("HOME")
    return Path(home, ".docker") if home else None


def _current_context(folder: Path | None) -> str:
    """The context that ``docker context use`` set. A broken config.json counts as none."""
    plain: dict[str, Any] = {}
    if folder:
        with suppress(OSError, ValueError, RecursionError):
            plain = _read_json(folder / "config.json")
    name = plain.get("currentContext")
    return name if isinstance(name, str) else ""


def _of_context(name: str, folder: Path | None) -> EngineAddress:
    title = f"the docker context {name[:100]!r}"
    if folder is None:
        raise EngineUnreachable(title, "neither DOCKER_CONFIG nor HOME is set")
    key = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
    try:
        meta = _read_json(folder / "contexts" / "meta" / key / "meta.json")
        endpoint = meta["Endpoints"]["docker"]
        host = endpoint.get("Host") or ""
        skips_verification = bool(endpoint.get("SkipTLSVerify"))
    except FileNotFoundError as error:
        raise EngineUnreachable(title, f"{folder} has no such context") from error
    except OSError as error:
        raise EngineUnreachable(title, f"{error.filename}: {error.strerror}") from error
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise EngineUnreachable(title, f"its meta.json in {folder} is broken") from error
    if not isinstance(host, str):
        raise EngineUnreachable(title, f"its meta.json in {folder} is broken")
    if not host:
        return EngineAddress(_answering_socket(["/var/run/docker.sock"]))
    tls = _tls(folder / "contexts" / "tls" / key / "docker", verify=not skips_verification)
    return EngineAddress(host, tls=tls)


def _tls(folder: Path, *, verify: bool) -> ContextTls | None:
    ca, certificate, key = (
        path if path.exists() else None
        for path in (folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    )
    if not (ca or certificate or key):
        return None
    return ContextTls(ca, certificate, key, verify)


def _read_json(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        plain = json.loads(file.read(_MAX_CONFIG))
    if not isinstance(plain, dict):
        raise ValueError(f"{path} is not a JSON object")
    return plain
