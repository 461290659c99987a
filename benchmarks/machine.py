"""What measurements were made on: the machine, the versions of all that took part, the commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from docket import __version__

_PACKAGES = ("libtorrent", "torf", "zstandard", "lmdb", "starlette", "uvicorn")
_PROGRAMS = {
    "dockerd": ("dockerd", "--version"),
    "podman": ("podman", "--version"),
    "skopeo": ("skopeo", "--version"),
    "docker-registry": ("docker-registry", "--version"),
    "zstd": ("zstd", "--version"),
}
_VERSION = re.compile(r"\d+(?:\.\d+)+[\w.+~-]*")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and with what; *memory* in bytes, *commit* ends with ``+`` when files had changed."""

    processor: str
    processors: int
    memory: int
    kernel: str
    filesystem: str
    commit: str
    date: str
    versions: dict[str, str]


def this_machine(folder: Path) -> Machine:
    """This machine, whose measurements keep their files in *folder*."""
    versions = {"docket": __version__, "python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    versions |= {name: _version(argv) for name, argv in _PROGRAMS.items() if shutil.which(argv[0])}
    return Machine(
        processor=_field(Path("/proc/cpuinfo"), "model name"),
        processors=os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        filesystem=_said(("stat", "--file-system", "--format=%T", str(folder))),
        commit=_commit(),
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        versions=versions,
    )


def _commit() -> str:
    root = Path(__file__).parent
    commit = _said(("git", "-C", str(root), "rev-parse", "--short", "HEAD"))
    code = ("../docket", "*.py")  # results that are kept are no change
    changed = _said(("git", "-C", str(root), "status", "--porcelain", "--", *code))
    return f"{commit}+" if changed else commit


def _version(argv: tuple[str, ...]) -> str:
    version = _VERSION.search(_said(argv))
    return version[0].rstrip(",") if version else ""


def _said(argv: tuple[str, ...]) -> str:
    """What a program prints; nothing where it can't be run, as git outside of a clone."""
    if shutil.which(argv[0]) is None:
        return ""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _field(path: Path, name: str) -> str:
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")
