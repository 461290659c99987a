"""What long work reports while it goes on: the state of each layer, and notes for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

HELD = "held"
UPLOADING = "uploading"
FETCHING = "fetching"
VERIFIED = "verified"
DONE = "done"
CHECKING = "checking"

SWARM = "swarm"
HTTP = "http"

ENGINE = "engine"
"""Where a layer is that neither moved nor lies in the store: the container engine has it."""

MISSING = "missing"


@dataclass(frozen=True, slots=True)
class LayerProgress:
    """How far one layer is: *done* of *total* bytes, at *rate* bytes a second from *peers*.

    Where something else is counted, *unit* says what.
    """

    name: str
    state: str
    done: int
    total: int
    rate: float = 0.0
    peers: int = 0
    unit: str = ""


class Progress(Protocol):
    """Takes reports; may be called from several threads."""

    def layer(self, progress: LayerProgress) -> None:
        """A layer's state changed, or it moved on."""

    def note(self, text: str) -> None:
        """Something that a person would want to know now."""


class Silent:
    """A `Progress` that reports nothing."""

    def layer(self, progress: LayerProgress) -> None:
        """A no-op."""

    def note(self, text: str) -> None:
        """A no-op."""
