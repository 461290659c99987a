"""Where things lie by default, and the registry's address as options give it."""

from __future__ import annotations

import os
from pathlib import Path

SYSTEM_LOCATION = Path("/var/local/docket")
"""The store of root's registry, as it was in the first docket."""


def data_location() -> Path:
    """The user's own store (XDG base directory: ``$XDG_DATA_HOME/docket``)."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "docket"


def registry_location() -> Path:
    """Where a registry keeps its store: `SYSTEM_LOCATION` for root, else beside the user's own."""
    return SYSTEM_LOCATION if os.geteuid() == 0 else data_location() / "registry"


def tracker_url(tracker: str) -> str:
    """The announce URL for ``HOST:PORT``, or a full URL as it is."""
    return tracker if "://" in tracker else f"http://{tracker}/announce"
