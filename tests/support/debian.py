"""Debian root file systems by mmdebstrap, from the mirrors that this machine's apt uses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

# 2024-10-01: newer time stamps are clamped to it, so that two builds give the same bytes.
SOURCE_DATE_EPOCH = 1727740800

_RELEASES = {"bullseye", "bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable"}
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SETTINGS = re.compile(
    r"^Acquire::(http|https|ftp|Retries|Check-|AllowInsecure|ForceIPv)", re.IGNORECASE
)


class PartMissing(RuntimeError):
    """A program that is needed is not on this machine."""

    def __init__(self, command: str, package: str) -> None:
        self.command = command
        self.package = package
        super().__init__(f"{command} is missing; install it, e.g. by apt-get install {package}")


class StepFailed(RuntimeError):
    """A program that was started ended with an error."""


def require(command: str, package: str) -> None:
    """Raise PartMissing unless *command* is on the PATH."""
    if shutil.which(command) is None:
        raise PartMissing(command, package)


def run(argv: Sequence[str | Path], *, epoch: int | None = None) -> None:
    """Run *argv* to its end; raise StepFailed with the end of its output unless it succeeds."""
    env = dict(os.environ)
    if epoch is not None:
        env["SOURCE_DATE_EPOCH"] = str(epoch)
    done = subprocess.run(
        argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        command = " ".join(map(str, argv))[:300]
        raise StepFailed(f"{command} failed ({done.returncode}):\n{done.stdout[-3000:]}")


def bootstrap(
    suite: str,
    target: Path,
    *,
    variant: str,
    include: Sequence[str],
    options: Sequence[str] = (),
) -> None:
    """Build a root file system of Debian *suite* with the packages *include* at *target*.

    *target* is a tar when its name ends with .tar, else a folder. Returning means it is whole;
    while it is being built it has another name. Raises PartMissing or StepFailed.
    """
    require("mmdebstrap", "mmdebstrap")
    partial = target.with_name(f".partial-{target.name}")
    if partial.is_dir():
        shutil.rmtree(partial)
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as settings:
        settings.write(_apt_settings())
        settings.flush()
        run(
            [
                "mmdebstrap",
                "--quiet",
                f"--variant={variant}",
                f"--include={','.join(include)}",
                f"--aptopt={settings.name}",
                *options,
                suite,
                partial,
                *_mirrors(suite),
            ],
            epoch=SOURCE_DATE_EPOCH,
        )
    partial.rename(target)


def _apt_settings() -> str:
    """How this machine's apt reaches its mirrors (proxies, certificates, checks of dates)."""
    if shutil.which("apt-config") is None:
        return ""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
    lines = (line for line in dump.stdout.splitlines() if _SETTINGS.match(line))
    return "".join(f"{line}\n" for line in lines if not line.endswith(' "";'))


def _mirrors(suite: str) -> list[str]:
    """The Debian mirrors of this machine for *suite*; none, mmdebstrap's own, if it has none."""
    if shutil.which("apt-get") is None:
        return []
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    plain, security = "", ""
    for line in listing.stdout.splitlines():
        site, _, release = line.partition(" ")
        codename, _, part = release.partition("-")
        if codename in _RELEASES and part.startswith("security"):
            security = security or site
        elif codename in _RELEASES and not part:
            plain = plain or site
    if not plain:
        return []
    signed = f"deb [signed-by={_KEYRING}]" if _KEYRING.exists() else "deb"
    lines = [f"{signed} {plain} {suite} main"]
    if suite not in {"sid", "unstable"}:
        lines.append(f"{signed} {plain} {suite}-updates main")
        if security:
            lines.append(f"{signed} {security} {suite}-security main")
    return lines
