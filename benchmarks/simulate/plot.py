"""A figure of what hosts wait, and what leaves the registry, against N."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.simulate.results import KIND, kind
from benchmarks.suite.plots import BLUE, GREEN, ORANGE, SKY, figure


def draw(runs: Sequence[dict[str, Any]], folder: Path) -> None:
    """Draw *runs* (as `report.as_json` gives them) as ``simulate`` in *folder*."""
    rows = sorted((run for run in runs if run["finished"]), key=lambda run: run["hosts"])
    variants = dict.fromkeys(kind(run) for run in rows)
    differing = [
        name for name, *values in zip(KIND, *variants, strict=True) if len(set(values)) > 1
    ]
    with figure(folder / "simulate.svg", columns=2, size=(11, 4)) as (times, egress):
        for variant, style in zip(variants, cycle(("o-", "s--", "^:", "d-.")), strict=False):
            mine = [run for run in rows if kind(run) == variant]
            hosts = [run["hosts"] for run in mine]
            name = _name_of(mine[0], differing)
            for rank, label, colour in (("p50", "median", BLUE), ("max", "last host", ORANGE)):
                values = [run["fetch_ratio"][rank] for run in mine]
                times.plot(hosts, values, style, color=colour, label=f"{label}, {name}")
            sent = [run["egress"]["payloads"] for run in mine]
            egress.plot(hosts, sent, style, color=GREEN, label=name)
        times.axhline(1.0, color="black", ls="--", lw=1.2, label="T*, the bound")
        times.axhline(1.05, color=SKY, ls=":", lw=1.2, label="floor (headers)")
        egress.axhline(1.0, color="black", ls="--", lw=1.2, label="one image")
        times.set(xscale="log", xlabel="hosts", ylabel="time of the fetch / T*")
        egress.set(xscale="log", xlabel="hosts", ylabel="images that left the registry")
        for axes in (times, egress):
            hosts = sorted({run["hosts"] for run in rows})
            axes.set_xticks(hosts, [f"{count:,}" for count in hosts])
            axes.minorticks_off()
            axes.legend(fontsize=8)


def _name_of(run: dict[str, Any], differing: Sequence[str]) -> str:
    """The name of a line: one network or several, and the settings that differ."""
    zone = f"networks of {run['zone']} hosts" if run["zone"] else "one network"
    return ", ".join([zone, *(f"{name} {run[name]:g}" for name in differing if name != "zone")])
