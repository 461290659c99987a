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


def as_json(found: Outcome) -> dict[str, Any]:
    """All of it. Seconds and bytes; ratios are to T*; egress in images too."""
    return {
        **asdict(found.scenario),
        "t_star": round(found.scenario.bound, 3),
        "finished": found.finished,
        "fetch_ratio": {name: round(value, 4) for name, value in found.ratio.items()},
        "egress": {"bytes": round(found.egress), "payloads": round(found.images, 4)},
        "peers": round(found.peers, 1),
        "cpu": round(found.cpu, 1),
    }


def row(found: Outcome) -> Sequence[str]:
    """The values below `HEADINGS`; a maximum that wasn't reached is one of those that were done."""
    ratio = found.ratio
    return (
        f"{found.scenario.hosts:,}",
        f"{found.scenario.bound:.1f}",
        *(f"{ratio[name]:.3f}" if ratio else "-" for name in ("p50", "p99")),
        f"{ratio['max']:.3f}" if found.finished else "not done",
        f"{found.images:.3f}",
        f"{found.peers:.0f}",
        f"{found.cpu:.1f}",
    )
