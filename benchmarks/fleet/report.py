"""A run as plain values for JSON, and as a row of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.fleet.lab import Pull, Run
from benchmarks.simulate.scenario import HEADERS

_POINTS = 120
"""At most so many points of each curve are kept."""

HEADINGS = (
    *("strategy", "hosts", "T* s", "p50/T*", "p99/T*", "max/T*", "fetch p50/T*", "egress"),
    *("src CPU s", "src MB", "peer CPU s", "peer MB", "busy"),
)


def as_json(run: Run) -> dict[str, Any]:
    """All of a run. Seconds and bytes; ratios are to T*; egress in payloads too.

    Of a run that was stopped, ranks that no host has reached are left out.
    """
    hosts = run.setting.hosts
    return {
        "strategy": run.strategy,
        **asdict(run.setting),
        "image": run.image,
        "payload": run.payload,
        "pieces": run.pieces,
        "t_star": round(run.bound, 3),
        "finished": run.finished,
        "elapsed": round(run.elapsed, 3),
        "share_done": round(_share_done(run), 4),
        "expected": round(expected(run), 1),
        "seconds": _spread(run.seconds, hosts),
        "ratio": _spread([one / run.bound for one in run.seconds], hosts),
        "fetch_ratio": _spread([one / run.bound for one in phases(run).get("fetch", [])], hosts),
        "phases": {name: _spread(values, hosts) for name, values in phases(run).items()},
        "egress": {"bytes": run.egress, "payloads": round(run.egress / run.payload, 4)},
        "source": {"cpu": round(run.source_cpu, 2), "peak_rss": run.source_rss},
        "peers": {
            "cpu": _spread(sorted(pull.cpu for pull in run.pulls), hosts),
            "peak_rss": _spread(sorted(float(pull.rss) for pull in run.pulls), hosts),
        },
        "busy": round(run.busy, 3),
        "hosts_seconds": [pull.seconds and round(pull.seconds, 3) for pull in run.pulls],
        **_curves(run),
    }


def row(run: Run) -> list[str]:
    """The values below `HEADINGS`."""
    told = as_json(run)
    ratio, fetch = told["ratio"], told["fetch_ratio"]
    most = f"{ratio['max']:.3f}" if run.finished else f"~{expected(run) / run.bound:.1f}"
    return [
        run.strategy,
        str(run.setting.hosts),
        f"{run.bound:.1f}",
        *(f"{ratio[name]:.3f}" if name in ratio else "-" for name in ("p50", "p99")),
        most,
        f"{fetch['p50']:.3f}" if "p50" in fetch else "-",
        f"{told['egress']['payloads']:.3f}",
        f"{run.source_cpu:.1f}",
        f"{run.source_rss / 1e6:.0f}",
        f"{told['peers']['cpu']['p50']:.1f}",
        f"{told['peers']['peak_rss']['max'] / 1e6:.0f}",
        f"{run.busy:.2f}",
    ]


def expected(run: Run) -> float:
    """Seconds until the last host is done: as measured, or by the rate so far if it was stopped."""
    return run.elapsed if run.finished else run.elapsed / max(_share_done(run), 1e-9)


def phases(run: Run) -> dict[str, list[float]]:
    """Seconds of each phase that the hosts' commands told, ascending; ``start`` is what's left."""
    found: dict[str, list[float]] = {}
    for pull in run.pulls:
        for name, seconds in _phases(pull).items():
            found.setdefault(name, []).append(seconds)
    return {name: sorted(values) for name, values in found.items()}


def _phases(pull: Pull) -> dict[str, float]:
    told: dict[str, float] = pull.report.get("seconds", {})
    if not told or pull.seconds is None:
        return {}
    # layers are verified while others are fetched: that is no phase of its own
    return {**told, "start": pull.seconds - told["fetch"] - told["load"]}


def _share_done(run: Run) -> float:
    """How much of all payload had come, at most 1: what came in by the links, less headers."""
    came = (
        run.payload if pull.seconds is not None else (curve[-1] - curve[0]) / HEADERS
        for pull, curve in zip(run.pulls, run.curves, strict=True)
    )
    return sum(min(one, run.payload) for one in came) / (run.payload * run.setting.hosts)


def _spread(values: Sequence[float], hosts: int) -> dict[str, float]:
    """Median, 99th percentile (nearest rank) and maximum of all *hosts*.

    *values* are those of the hosts that have one, ascending; others would come behind them.
    """
    ranks = {"p50": 0.50, "p99": 0.99, "max": 1.0}
    places = {name: math.ceil(rank * hosts) - 1 for name, rank in ranks.items()}
    return {name: round(values[place], 4) for name, place in places.items() if place < len(values)}


def _curves(run: Run) -> dict[str, Any]:
    step = -(-len(run.clock) // _POINTS)
    return {
        "clock": [round(one, 2) for one in run.clock[::step]],
        "curves": [[value - curve[0] for value in curve[::step]] for curve in run.curves],
    }
