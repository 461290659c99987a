"""Figures of runs: what each host had over time, and how far from the bound against N."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.fleet.results import stem

_KINDS = ("svg", "png")


def draw(runs: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Figures of *runs* (as `report.as_json` gives them) into *folder*; the files made."""
    made = []
    for run in runs:
        made += _save(_curves(run), folder / stem(run))
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
    for kind in dict.fromkeys((run["strategy"], run["payload"] // 10**6) for run in runs):
        rows = sorted(
            ((run["hosts"], run) for run in runs if kind == _kind(run)), key=lambda row: row[0]
        )
        hosts = [count for count, _ in rows]
        ratio = [run["expected"] / run["t_star"] for _, run in rows]
        axes.plot(hosts, ratio, marker="o", label=f"{kind[0]}, {kind[1]} MB")
    axes.axhline(1.05, color="grey", linestyle=":", label="floor (headers)")
    axes.set_yscale("log")
    axes.set_xlabel("hosts")
    axes.set_ylabel("last host's time / T*")
    axes.legend()
    return figure


def _kind(run: dict[str, Any]) -> tuple[str, int]:
    return run["strategy"], run["payload"] // 10**6


def _save(figure: Any, stem: Path) -> list[Path]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in _KINDS]
    for path in paths:
        figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return paths
