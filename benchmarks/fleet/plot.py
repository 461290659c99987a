"""Figures of runs: what each host had over time, and how far from the bound against N."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

_KINDS = ("svg", "png")


def draw(runs: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Figures of *runs* (as `report.as_json` gives them) into *folder*; the files made."""
    made = []
    for run in runs:
        made += _save(_curves(run), folder / f"curves-{run['strategy']}-{run['hosts']}")
    if runs:
        made += _save(_ratios(runs), folder / "ratios")
    return made


def _curves(run: dict[str, Any]) -> Any:
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for curve in run["curves"]:
        axes.plot(run["clock"], [value / 1e6 for value in curve], linewidth=0.7, alpha=0.6)
    axes.axvline(run["t_star"], color="black", linestyle="--", label=f"T* {run['t_star']:.1f} s")
    axes.axhline(run["payload"] / 1e6, color="grey", linestyle=":", label="the image")
    axes.set_title(f"{run['strategy']}: {run['hosts']} hosts at {run['shape']['mbit']:g} Mb/s")
    axes.set_xlabel("seconds")
    axes.set_ylabel("MB received by each host")
    axes.legend(loc="lower right")
    return figure


def _ratios(runs: Sequence[dict[str, Any]]) -> Any:
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for strategy in dict.fromkeys(run["strategy"] for run in runs):
        rows = sorted((run["hosts"], run) for run in runs if run["strategy"] == strategy)
        hosts = [count for count, _ in rows]
        # all against docket's bound: another way may move more bytes
        bounds = {run["hosts"]: run["t_star"] for run in runs if run["strategy"] == "docket"}
        ratio = [run["expected"] / bounds.get(count, run["t_star"]) for count, run in rows]
        axes.plot(hosts, ratio, marker="o", label=strategy)
    axes.axhline(1.05, color="grey", linestyle=":", label="floor (headers)")
    axes.set_yscale("log")
    axes.set_xlabel("hosts")
    axes.set_ylabel("last host's time / T*")
    axes.legend()
    return figure


def _save(figure: Any, stem: Path) -> list[Path]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in _KINDS]
    for path in paths:
        figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return paths
