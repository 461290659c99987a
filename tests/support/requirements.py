"""What a test needs of the machine: without it the test is skipped, or fails where it must run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

_PACKAGES = {
    "aria2c": "aria2",
    "containerd": "containerd",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "ping": "iputils-ping",
    "systemd-analyze": "systemd",
    "tc": "iproute2",
    "transmission-cli": "transmission-cli",
    "unshare": "util-linux",
    "zstd": "zstd",
}


def need(*commands: str) -> None:
    """Go on only if all *commands* are on the PATH.

    Otherwise the test is skipped; with DOCKET_REQUIRE_PARTS=1 it fails.
    """
    for command in commands:
        if shutil.which(command) is None:
            package = _PACKAGES.get(command, command)
            missing(f"{command} (apt-get install {package})")


def need_root() -> None:
    """Go on only as root; else as with need()."""
    if os.geteuid() != 0:
        missing("root (run the tests as root)")


def cache() -> Path:
    """Where what takes long to build is kept: DOCKET_TEST_CACHE, or ~/.cache/docket-tests."""
    folder = Path(os.environ.get("DOCKET_TEST_CACHE") or Path.home() / ".cache" / "docket-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def missing(part: str) -> NoReturn:
    """Skip the test for want of *part*, or fail it with DOCKET_REQUIRE_PARTS=1."""
    reason = f"part missing: {part}"
    if os.environ.get("DOCKET_REQUIRE_PARTS") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
