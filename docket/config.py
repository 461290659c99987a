"""Default values and paths; cheap to import, so that ``--help`` can show them."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from docket.errors import NoHome

PIN_SECONDS = 3600.0
"""How long a blob is protected from gc after a client was told that it exists."""

IDLE_SECONDS = 300.0
"""How long a torrent without peers stays in the registry's session."""

SCRUB_RATE = 20_000_000
"""Bytes a second that a registry's scrub reads at most."""

PEER_TIMEOUT = 5.0
"""Seconds without a byte from peers before a pull uses HTTP."""

LOG_LEVELS = ("debug", "info", "warning", "error")
"""What a service logs: events of this importance and above."""

SYSTEM_LOCATION = Path("/var/local/docket")
"""The store of root's registry, as it was in the first docket."""


def data_location() -> Path:
    """The user's own store: ``$XDG_DATA_HOME/docket``, else ``~/.local/share/docket``.

    Raises `NoHome` where neither is known. A relative XDG_DATA_HOME is ignored (XDG base
    directory specification).
    """
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    if not base.is_absolute():
        base = home() / ".local" / "share"
    return base / "docket"


def registry_location() -> Path:
    """Where a registry keeps its store: `SYSTEM_LOCATION` for root, else beside the user's own."""
    return SYSTEM_LOCATION if os.geteuid() == 0 else data_location() / "registry"


def tracker_url(tracker: str) -> str:
    """The announce URL for ``HOST:PORT``, or a full URL as it is."""
    return tracker if "://" in tracker else f"http://{tracker}/announce"


def home() -> Path:
    """HOME when it is a path, else the home folder of the user id."""
    named = Path(os.environ.get("HOME", ""))
    if named.is_absolute():
        return named
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        raise NoHome(os.getuid()) from None
