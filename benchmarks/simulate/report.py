"""A simulated run as plain values for JSON, and as a row of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.simulate.model import Model
from benchmarks.simulate.scenario import Scenario

HEADINGS = ("hosts", "T* s", "p50/T*", "p99/T*", "max/T*", "egress", "peers", "CPU s")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out: seconds of each host's fetch, ascending, or None for one that wasn't done.

    *egress* is what left the registry, in bytes with headers, *peers* how many connections a host
    had on average, *cpu* what the model took, in seconds.
    """

    scenario: Scenario
    seconds: tuple[float, ...]
    finished: bool
    egress: float
    peers: float
    cpu: float

    @property
    def ratio(self) -> dict[str, float]:
        """Median, 99th percentile (nearest rank) and maximum of the fetches, in T*."""
        if not self.seconds:
            return {}
        ranks = {"p50": 0.50, "p99": 0.99, "max": 1.0}
        return {
            name: self.seconds[math.ceil(rank * len(self.seconds)) - 1] / self.scenario.bound
            for name, rank in ranks.items()
        }

    @property
    def images(self) -> float:
        """Images that left the registry."""
        return self.egress / self.scenario.payload


def outcome(model: Model, cpu: float) -> Outcome:
    """What became of a model that has run."""
    lived = [host for host in model.hosts if not host.dead]
    done = sorted(host.done - host.began for host in lived if host.done is not None)
    return Outcome(
        scenario=model.scenario,
        seconds=tuple(done),
        finished=len(done) == len(lived),
        egress=model.registry.egress,
        peers=sum(len(host.takes) for host in lived) / max(len(lived), 1),
        cpu=cpu,
    )


def as_json(outcome: Outcome) -> dict[str, Any]:
    """All of it. Seconds and bytes; ratios are to T*; egress in images too."""
    return {
        **asdict(outcome.scenario),
        "t_star": round(outcome.scenario.bound, 3),
        "finished": outcome.finished,
        "fetch_ratio": {name: round(value, 4) for name, value in outcome.ratio.items()},
        "egress": {"bytes": round(outcome.egress), "payloads": round(outcome.images, 4)},
        "peers": round(outcome.peers, 1),
        "cpu": round(outcome.cpu, 1),
    }


def row(outcome: Outcome) -> Sequence[str]:
    """The values below `HEADINGS`; a maximum that wasn't reached is one of those that were done."""
    ratio = outcome.ratio
    return (
        f"{outcome.scenario.hosts:,}",
        f"{outcome.scenario.bound:.1f}",
        *(f"{ratio[name]:.3f}" if ratio else "-" for name in ("p50", "p99")),
        f"{ratio['max']:.3f}" if outcome.finished else "not done",
        f"{outcome.images:.3f}",
        f"{outcome.peers:.0f}",
        f"{outcome.cpu:.1f}",
    )
