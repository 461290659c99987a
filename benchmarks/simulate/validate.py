"""The model beside the lab: the same settings, and how far its figures are from what was measured.

It reads the ``fleet.json`` of `benchmarks.fleet`. Hosts begin in the lab when their commands have
started, each a little later or earlier: that spread is taken from the lab too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.simulate.report import Outcome
from benchmarks.simulate.scenario import Scenario

TOLERANCE = 0.15
"""How far the model's times may be from the lab's."""

HEADINGS = ("hosts", "Mb/s", "p50 lab", "model", "max lab", "model", "egress lab", "model", "")


@dataclass(frozen=True, slots=True)
class Measured:
    """A run of the lab: fetches in T*, egress in images."""

    scenario: Scenario
    p50: float
    most: float
    images: float


def read(path: Path, *, seed: int, grain: int) -> list[Measured]:
    """The lab's runs of docket that ended, to be simulated with *seed* and *grain*.

    Raises ValueError when the file is none of the lab's or has no such run.
    """
    try:
        runs = [
            _measured(run, seed, grain)
            for run in json.loads(path.read_text())["runs"]
            if _is_ours(run)
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no result of benchmarks.fleet: {error!r}") from error
    if not runs:
        raise ValueError(f"{path} has no run of docket that ended")
    return runs


def agrees(measured: Measured, outcome: Outcome) -> bool:
    """Whether all hosts were done, and the model's median and last fetch are near the lab's."""
    pairs = ((measured.p50, outcome.ratio.get("p50")), (measured.most, outcome.ratio.get("max")))
    return outcome.finished and all(
        model is not None and abs(model / lab - 1) <= TOLERANCE for lab, model in pairs
    )


def row(measured: Measured, outcome: Outcome) -> Sequence[str]:
    """The values below `HEADINGS`."""
    ratio = outcome.ratio
    pairs = (
        (measured.p50, ratio.get("p50", 0.0)),
        (measured.most, ratio.get("max", 0.0)),
        (measured.images, outcome.images),
    )
    return (
        str(measured.scenario.hosts),
        f"{measured.scenario.mbit:g}",
        *(f"{value:.3f}" for pair in pairs for value in pair),
        "agrees" if agrees(measured, outcome) else "DIFFERS",
    )


def _is_ours(run: dict[str, Any]) -> bool:
    return bool(run["strategy"] == "docket" and run["finished"])


def _measured(run: dict[str, Any], seed: int, grain: int) -> Measured:
    start = run["phases"]["start"]
    scenario = Scenario(
        hosts=run["hosts"],
        mbit=run["shape"]["mbit"],
        pieces=run["pieces"],
        payload=run["payload"],
        # about the median as far to both sides
        spread=2 * (start["max"] - start["p50"]),
        seed=seed,
        grain=grain,
    )
    fetch = run["fetch_ratio"]
    return Measured(scenario, fetch["p50"], fetch["max"], run["egress"]["payloads"])
