"""Where engines of this host keep blobs: the content stores of containerd, Docker's among them."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docket.errors import InvalidOption

AUTO = "auto"
NONE = "none"

_CONTENT = "io.containerd.content.v1.content"
_BELOW = (_CONTENT, f"containerd/daemon/{_CONTENT}")
"""Where it lies below containerd's root, and Docker's."""


@dataclass(frozen=True, slots=True)
class HostPaths:
    """The files that say where engines keep blobs."""

    docker_settings: Path
    docker_root: Path
    containerd_config: Path
    containerd_root: Path

    @classmethod
    def of_host(cls) -> HostPaths:
        """Those of this host: of root's engines, or of this user's."""
        if os.geteuid() == 0:
            return cls(
                Path("/etc/docker/daemon.json"),
                Path("/var/lib/docker"),
                Path("/etc/containerd/config.toml"),
                Path("/var/lib/containerd"),
            )
        home = Path(os.environ.get("HOME") or "/nonexistent")
        config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
        return cls(
            config / "docker/daemon.json",
            data / "docker",
            config / "containerd/config.toml",
            data / "containerd",
        )


@dataclass(frozen=True, slots=True)
class ContentStores:
    """The folders, ``…/blobs/sha256``, that may hold blobs, and what to *warn* of."""

    folders: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()


def content_stores(option: str, paths: HostPaths | None = None) -> ContentStores:
    """The content stores that ``--content-store`` means: ``auto``, ``none``, or a folder.

    Folders need not exist yet. Raises `InvalidOption` for a folder that isn't there.
    """
    if option == NONE:
        return ContentStores()
    host = paths or HostPaths.of_host()
    if option != AUTO:
        return ContentStores(_given(Path(option)), tuple(_warnings(host)))
    docker_root = _setting(host.docker_settings, "data-root") or host.docker_root
    containerd_root = _setting(host.containerd_config, "root") or host.containerd_root
    roots = (docker_root / "containerd/daemon", containerd_root)
    folders = tuple(root / _CONTENT / "blobs/sha256" for root in roots)
    return ContentStores(folders, tuple(_warnings(host)))


def _given(folder: Path) -> tuple[Path, ...]:
    """Where blobs are, or may come, below *folder*. Raises `InvalidOption`."""
    if not folder.is_dir():
        raise InvalidOption(
            str(folder), "--content-store takes the folder of a content store, containerd or Docker"
        )
    if folder.name == _CONTENT or (folder / "blobs").is_dir():
        return (folder / "blobs/sha256",)
    roots = [folder / below for below in _BELOW]
    there = [root for root in roots if root.is_dir()]
    return tuple(root / "blobs/sha256" for root in there or roots)


def _setting(path: Path, name: str) -> Path | None:
    value = _settings(path).get(name)
    return Path(value) if isinstance(value, str) and value else None


def _settings(path: Path) -> dict[str, Any]:
    """What an engine's file says; nothing if it can't be read: the engine complains of it."""
    with suppress(OSError, ValueError, RecursionError):
        text = path.read_text()
        parsed = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        if isinstance(parsed, dict):
            return parsed
    return {}


def _warnings(host: HostPaths) -> Iterator[str]:
    if _has_true(_settings(host.containerd_config), "discard_unpacked_layers"):
        yield (
            f"discard_unpacked_layers is on in {host.containerd_config}: containerd drops layers "
            "once they are unpacked; set it to false, so that this host can serve them"
        )


def _has_true(settings: object, name: str) -> bool:
    """Whether *name* is true in any table: it moved between versions of containerd."""
    if not isinstance(settings, dict):
        return False
    return settings.get(name) is True or any(_has_true(v, name) for v in settings.values())
