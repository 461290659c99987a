"""The chain of deploys that is measured, on hosts that keep what they get."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """A deploy of *image* to hosts that have gone through the steps before it."""

    name: str
    image: str  # name:tag


FIRST = "app-python:1.0"
SECOND = "app-python:1.1"
"""The same with a new application layer alone."""

STEPS = (
    Step("1.0, empty host", FIRST),
    Step("1.0 → 1.1, app", SECOND),
    Step("1.1 → 1.2, package", "app-python:1.2"),
    Step("1.2 → 2.0, system", "app-python:2.0"),
    Step("node after python", "app-node:1.0"),
)

IMAGES = tuple(step.image for step in STEPS)
