"""What setup means to change: files with their new content, and what an operator must know."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class AgentAddress:
    """Where engines reach the agent: a host (IPv6 without brackets) and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> AgentAddress:
        """Parse ``HOST:PORT``; raises ValueError with the reason.

        An address that stands for all interfaces becomes that of loopback.
        """
        host, _, digits = text.rpartition(":")
        if not host or not (digits.isascii() and digits.isdigit()):
            raise ValueError(f"{text!r} is no HOST:PORT such as 127.0.0.1:5000")
        if not 0 < int(digits[:6]) < 65536:
            raise ValueError(f"{digits[:40]} is no port from 1 to 65535")
        return cls(_checked_host(host), int(digits))

    @property
    def authority(self) -> str:
        """``host:port`` as it stands in a URL and before an image's name."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The agent's URL; it speaks plain HTTP."""
        return f"http://{self.authority}"

    @property
    def network(self) -> str:
        """What Docker's ``insecure-registries`` needs to reach the agent over plain HTTP."""
        address = _address(self.host)
        if address and address.is_loopback:
            return "127.0.0.0/8" if address.version == 4 else "::1/128"
        return self.authority


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry that the agent belongs to, as image names begin: ``host[:port]``."""

    authority: str
    is_plain_http: bool


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file's new content, and why it has it."""

    path: Path
    content: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All changes for one engine.

    *notes* are limits that hold with these changes; *next_steps* are what the operator has to do,
    such as a restart.
    """

    engine: str
    changes: tuple[FileChange, ...]
    notes: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Paths:
    """Where engines look for their files: those of the system, or those of one user."""

    docker: Path
    containerd: Path
    containers: Path
    units: Path
    record: Path  # docket's own record of what setup wrote
    store: Path  # the agent's store
    is_user: bool

    @classmethod
    def of_system(cls) -> Paths:
        """The files of engines that run as root."""
        etc = Path("/etc")
        return cls(
            docker=etc / "docker",
            containerd=etc / "containerd",
            containers=etc / "containers",
            units=etc / "systemd" / "system",
            record=Path("/var/lib/docket/setup.json"),
            store=Path("/var/lib/docket/agent"),
            is_user=False,
        )

    @classmethod
    def of_user(cls, *, config: Path, state: Path, store: Path) -> Paths:
        """The files of rootless engines (XDG base directories *config* and *state*)."""
        return cls(
            docker=config / "docker",
            containerd=config / "containerd",
            containers=config / "containers",
            units=config / "systemd" / "user",
            record=state / "docket" / "setup.json",
            store=store,
            is_user=True,
        )


def _checked_host(text: str) -> str:
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if _address(host) is None and not _HOST_NAME.fullmatch(host):
        raise ValueError(f"{text[:300]!r} is no host name and no IP address")
    if ":" in host and host == text:
        raise ValueError(f"write the IPv6 address in brackets: [{host}]")
    return _ANY.get(host, host)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
