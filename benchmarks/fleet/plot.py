"""Plots of runs: what each host had received over time, and the times in T* by hosts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import LogFormatter

from benchmarks.bound import HEADERS
from benchmarks.fleet.results import line, stem
from benchmarks.suite.plots import figure


def draw(runs: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Plots of *runs* (as `report.as_json` gives them) into *folder*; the files made."""
    made: list[Path] = []
    for run in runs:
        made.append(folder / f"{stem(run)}.svg")
        with figure(made[-1], size=(7, 4.2)) as axes:
            _draw_curves(axes, run)
    if runs:
        made.append(folder / "ratios.svg")
        with figure(made[-1], size=(7, 4.2)) as axes:
            _draw_ratios(axes, runs)
    return made


def _draw_curves(axes: Any, run: dict[str, Any]) -> None:
    for curve in run["curves"]:
        axes.plot(run["clock"], [value / 1e6 for value in curve], linewidth=0.7, alpha=0.6)
    axes.axvline(run["t_star"], color="black", linestyle="--", label=f"T* {run['t_star']:.1f} s")
    axes.axhline(run["payload"] / 1e6, color="grey", linestyle=":", label="the image")
    axes.set_title(f"{run['hosts']} hosts: {line(run)}")
    axes.set_xlabel("seconds")
    axes.set_ylabel("MB received by each host")
    axes.legend(loc="lower right")


def _draw_ratios(axes: Any, runs: Sequence[dict[str, Any]]) -> None:
    for label in dict.fromkeys(line(run) for run in runs):
        rows = sorted((run for run in runs if line(run) == label), key=lambda run: run["hosts"])
        hosts = [run["hosts"] for run in rows]
        ratio = [run["expected"] / run["t_star"] for run in rows]
        axes.plot(hosts, ratio, marker="o", label=label)
    axes.axhline(HEADERS, color="grey", linestyle=":", label="floor (headers)")
    axes.set_yscale("log")
    # 1.2 and not 1.2 × 10⁰
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter())
    axes.set_xlabel("hosts")
    axes.set_ylabel("last host's time / T*")
    axes.figure.legend(loc="outside lower center")
