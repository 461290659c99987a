"""Layers and docker archives whose bytes depend on nothing but their content."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tests.support.debian import SOURCE_DATE_EPOCH

_CREATED = "2024-10-01T00:00:00Z"
# What mmdebstrap leaves of the machine it ran on, and what changes without a reason.
_MACHINE = (
    "dev/",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/hostname",
    "etc/machine-id",
    "etc/resolv.conf",
    "var/cache/",
    "var/lib/apt/",
    "var/log/",
)
_PAPERS = ("usr/share/doc/", "usr/share/info/", "usr/share/locale/", "usr/share/man/")


@dataclass(frozen=True, slots=True)
class Layer:
    """An uncompressed layer on disk."""

    path: Path
    step: str

    def diff_id(self) -> str:
        """The digest of the tar, in hex."""
        with self.path.open("rb") as tar:
            return hashlib.file_digest(tar, "sha256").hexdigest()


class Tree:
    """The members of a root file system that is kept as a tar."""

    def __init__(self, path: Path, *, papers: bool) -> None:
        """Read the tar at *path*; *papers* keeps documentation and translations."""
        self._tar = tarfile.open(path)  # noqa: SIM115  # closed by __exit__
        self._dropped = _MACHINE if papers else _MACHINE + _PAPERS
        members = ((_name(member.name), member) for member in self._tar)
        self._members = {name: member for name, member in members if self._keeps(name)}

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *failure: object) -> None:
        self._tar.close()

    def whole(self) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        """Every member, by name."""
        for name in sorted(self._members):
            yield self._entry(name)

    def changes(self, below: Tree) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        """What turns *below* into this tree (OCI image 1.1, layer § change types)."""
        changed = {
            name
            for name in self._members
            if name not in below._members or self._facts(name) != below._facts(name)
        }
        folders = {str(folder) for name in changed for folder in PurePosixPath(name).parents}
        gone = below._members.keys() - self._members.keys()
        roots = {name for name in gone if str(PurePosixPath(name).parent) not in gone}
        marks = {_whiteout(name) for name in roots}
        for name in sorted(changed | folders & self._members.keys() | marks):
            if name in marks:
                yield _entry(name, mode=0o644), b""
            else:
                yield self._entry(name)

    def _keeps(self, name: str) -> bool:
        return name not in {"", "."} and not any(
            name == path or (path.endswith("/") and name.startswith(path)) for path in self._dropped
        )

    def _facts(self, name: str) -> tuple[object, ...]:
        entry, content = self._entry(name)
        return (
            entry.type,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.linkname,
            entry.devmajor,
            entry.devminor,
            hashlib.sha256(content).digest(),
        )

    def _entry(self, name: str) -> tuple[tarfile.TarInfo, bytes]:
        member = self._members[name]
        content = b""
        # A hard link may lead into the layer below, where engines can't follow it: a copy.
        if member.isreg() or member.islnk():
            source = self._tar.extractfile(member)
            content = source.read() if source else b""
        entry = _entry(name, mode=member.mode, kind=member.type)
        if member.islnk():
            entry.type = tarfile.REGTYPE
        elif member.issym():
            entry.linkname = member.linkname
        entry.size = len(content)
        entry.uid, entry.gid = member.uid, member.gid
        entry.devmajor, entry.devminor = member.devmajor, member.devminor
        entry.mtime = min(int(member.mtime), SOURCE_DATE_EPOCH)
        return entry, content


def folder(source: Path, inside: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The files of *source* as they are to be under *inside*, owned by root."""
    for parent in reversed(PurePosixPath(inside).parents[:-1]):
        yield _entry(str(parent), mode=0o755, kind=tarfile.DIRTYPE), b""
    yield _entry(inside, mode=0o755, kind=tarfile.DIRTYPE), b""
    for path in sorted(source.rglob("*")):
        name = f"{inside}/{path.relative_to(source).as_posix()}"
        if path.is_symlink():
            entry = _entry(name, mode=0o777, kind=tarfile.SYMTYPE)
            entry.linkname = str(path.readlink())
            yield entry, b""
        elif path.is_dir():
            yield _entry(name, mode=0o755, kind=tarfile.DIRTYPE), b""
        else:
            executable = path.stat().st_mode & 0o100
            entry = _entry(name, mode=0o755 if executable else 0o644)
            content = path.read_bytes()
            entry.size = len(content)
            yield entry, content


def write_layer(target: Path, entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> None:
    """Write *entries* as an uncompressed layer; it has its name only when it is whole."""
    partial = target.with_name(f".partial-{target.name}")
    with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as tar:
        for entry, content in entries:
            tar.addfile(entry, io.BytesIO(content))
    partial.rename(target)


def write_archive(
    target: Path, *, image: str, layers: Sequence[Layer], settings: Mapping[str, Any]
) -> None:
    """Write the docker archive of *image*, in the form that skopeo and podman give it.

    *settings* are those of a container (OCI image 1.1, config § config).
    """
    diff_ids = [layer.diff_id() for layer in layers]
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": _CREATED,
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in diff_ids]},
            "history": [{"created": _CREATED, "created_by": layer.step} for layer in layers],
        }
    )
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = _json(
        [
            {
                "Config": config_name,
                "RepoTags": [image],
                "Layers": [f"{digest}.tar" for digest in diff_ids],
            }
        ]
    )
    partial = target.with_name(f".partial-{target.name}")
    with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as tar:
        for layer, digest in zip(layers, diff_ids, strict=True):
            entry = _entry(f"{digest}.tar", mode=0o644)
            entry.size = layer.path.stat().st_size
            with layer.path.open("rb") as content:
                tar.addfile(entry, content)
        for name, text in ((config_name, config), ("manifest.json", manifest)):
            entry = _entry(name, mode=0o644)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    partial.rename(target)


def _entry(name: str, *, mode: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    entry.type = kind
    entry.mtime = SOURCE_DATE_EPOCH
    return entry


def _name(name: str) -> str:
    return name.removeprefix("./").rstrip("/")


def _whiteout(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(f".wh.{path.name}"))


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
