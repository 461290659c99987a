"""A run as plain values for JSON, and as a row of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.bound import HEADERS
from benchmarks.fleet.lab import Run
from benchmarks.fleet.runner import Pull

_POINTS = 30
"""Points of a curve that are stored, at most."""

HEADINGS = (
    *("strategy", "hosts", "T* s", "p50/T*", "p99/T*", "max/T*", "fetch p50/T*", "egress"),
    *("src CPU s", "src MB", "peer CPU s", "peer MB", "busy"),
)


def as_json(run: Run) -> dict[str, Any]:
    """All of a run. Seconds and bytes; ratios are to T*; egress in payloads too.

    Of a run that was stopped, ranks that no host has reached are left out.
    """
    hosts, fetches = run.scenario.hosts, phases(run).get("fetch", [])
    return {
        "strategy": run.strategy,
        **asdict(run.scenario),
        "image": run.image,
        "payload": run.payload,
        "pieces": run.pieces,
        "t_star": round(run.bound, 3),
        "finished": run.finished,
        "elapsed": round(run.elapsed, 3),
        "share_done": round(_share_done(run), 4),
        "expected": round(expected(run), 1),
        "seconds": _percentiles(run.seconds, hosts),
        "ratio": _percentiles([seconds / run.bound for seconds in run.seconds], hosts),
        "fetch_ratio": _percentiles([seconds / run.bound for seconds in fetches], hosts),
        "phases": {name: _percentiles(values, hosts) for name, values in phases(run).items()},
        "egress": {"bytes": run.egress, "payloads": round(run.egress / run.payload, 4)},
        "source": {"cpu": round(run.source_cpu, 2), "peak_rss": run.source_rss},
        "peers": {
            "cpu": _percentiles(sorted(pull.cpu for pull in run.pulls), hosts),
            "peak_rss": _percentiles(sorted(float(pull.rss) for pull in run.pulls), hosts),
        },
        "busy": round(run.busy, 3),
        "hosts_seconds": [pull.seconds and round(pull.seconds, 3) for pull in run.pulls],
        **_last_fifth(run),
        **_curves(run),
    }


def row(run: Run) -> list[str]:
    """The values below `HEADINGS`."""
    plain = as_json(run)
    ratio, fetch = plain["ratio"], plain["fetch_ratio"]
    longest = f"{ratio['max']:.3f}" if run.finished else f"~{expected(run) / run.bound:.1f}"
    return [
        run.strategy,
        str(run.scenario.hosts),
        f"{run.bound:.1f}",
        *(f"{ratio[name]:.3f}" if name in ratio else "-" for name in ("p50", "p99")),
        longest,
        f"{fetch['p50']:.3f}" if "p50" in fetch else "-",
        f"{plain['egress']['payloads']:.3f}",
        f"{run.source_cpu:.1f}",
        f"{run.source_rss / 1e6:.0f}",
        f"{plain['peers']['cpu']['p50']:.1f}",
        f"{plain['peers']['peak_rss']['max'] / 1e6:.0f}",
        f"{run.busy:.2f}",
    ]


def expected(run: Run) -> float:
    """Seconds until the last host is done: as measured, or by the rate so far if it was stopped."""
    return run.elapsed if run.finished else run.elapsed / max(_share_done(run), 1e-9)


def phases(run: Run) -> dict[str, list[float]]:
    """Seconds of each phase as the commands report them, ascending; ``start`` is the rest."""
    seconds: dict[str, list[float]] = {}
    for pull in run.pulls:
        for name, value in _phases(pull).items():
            seconds.setdefault(name, []).append(value)
    return {name: sorted(values) for name, values in seconds.items()}


def _phases(pull: Pull) -> dict[str, float]:
    reported = pull.report.get("seconds", {})
    if not isinstance(reported, dict) or not reported or pull.seconds is None:
        return {}
    # layers are verified while others are fetched: that is no phase of its own
    return {**reported, "start": pull.seconds - reported["fetch"] - reported["load"]}


def _share_done(run: Run) -> float:
    """The share of all payload that was received, at most 1: bytes of the links, less headers."""
    received = (
        run.payload if pull.seconds is not None else (curve[-1] - curve[0]) / HEADERS
        for pull, curve in zip(run.pulls, run.curves, strict=True)
    )
    whole = run.payload * run.scenario.hosts
    return sum(min(payload, run.payload) for payload in received) / whole


def _last_fifth(run: Run) -> dict[str, float]:
    """The payloads that the last fifth of the hosts got from the registry, by their own count."""
    reports = [pull.report for pull in run.pulls if "from_registry" in pull.report]
    if not reports:
        return {}
    late = sorted(reports, key=lambda report: report["seconds"])[-math.ceil(len(reports) / 5) :]
    got = sum(report["from_registry"] for report in late)
    return {"last_fifth": round(got / run.payload, 4)}


def _percentiles(values: Sequence[float], hosts: int) -> dict[str, float]:
    """Median, 99th percentile (nearest rank) and maximum of all *hosts*.

    *values* are those of the hosts that have one, ascending; the other hosts rank after them.
    """
    ranks = {"p50": 0.50, "p99": 0.99, "max": 1.0}
    indices = {name: math.ceil(rank * hosts) - 1 for name, rank in ranks.items()}
    return {name: round(values[at], 4) for name, at in indices.items() if at < len(values)}


def _curves(run: Run) -> dict[str, Any]:
    """Points at about even distances, the first and the last among them."""
    last = len(run.clock) - 1
    points = sorted({round(last * number / (_POINTS - 1)) for number in range(_POINTS)})
    return {
        "clock": [round(run.clock[point], 2) for point in points],
        "curves": [[curve[point] - curve[0] for point in points] for curve in run.curves],
    }
