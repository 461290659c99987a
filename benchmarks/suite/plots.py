"""The suite's plots as SVG, in one style: units on every axis, a line for every bound."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.fleet.strategies import DEFAULT_LEVEL
from benchmarks.suite import bounds, pull, push
from benchmarks.suite.sections import BOUNDS, INDEX, PULL, PUSH, SIZES, STORE
from benchmarks.suite.sizes import FLEETS, GZIP, WHOLE_TAR, Row, docket_name
from benchmarks.summary import Summary
from tests.support.image_family.steps import STEPS

mpl.use("agg")
import matplotlib.pyplot as plt  # the back end must be chosen before

MB = 1e6

# Okabe and Ito's colours, which colour-blind readers tell apart
BLUE, ORANGE, GREEN, RED, PINK, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#8C8C8C",
)
_OURS = docket_name(DEFAULT_LEVEL)
_STRATEGIES = {WHOLE_TAR: GREY, GZIP: ORANGE, _OURS: BLUE}
_BOUNDS = {bounds.FILES: ("s", GREEN), bounds.CHUNKS: ("D", PINK), bounds.PATCH: ("^", RED)}
_STYLE = {
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.fonttype": "none",
    # the same results give the same files
    "svg.hashsalt": "docket",
}


_COORDINATE = re.compile(r"-?\d+\.\d{3,}")


def draw(folder: Path) -> None:
    """Draw what *folder* has results of, beside them."""
    _draw_sizes(folder)
    _draw_registry(folder)
    _draw_push(folder)
    _draw_pull(folder)
    _draw_ingest(folder)
    _draw_index(folder)


@contextmanager
def figure(
    path: Path, *, rows: int = 1, columns: int = 1, size: tuple[float, float]
) -> Iterator[Any]:
    """Axes to draw on; saved as *path*, which ends with .svg."""
    with plt.rc_context(_STYLE):
        drawing, axes = plt.subplots(rows, columns, figsize=size, layout="constrained")
        yield axes
        text = StringIO()
        drawing.savefig(text, format="svg", metadata={"Date": None})
        plt.close(drawing)
        path.write_text(_lighter(text.getvalue()))


def _lighter(svg: str) -> str:
    """*svg* with coordinates of a hundredth of a point, and no blanks at the ends of lines."""
    rounded = _COORDINATE.sub(lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), svg)
    return "\n".join(line.rstrip() for line in rounded.splitlines()) + "\n"


def bars(
    axes: Any, names: Sequence[str], values: Sequence[Summary], colours: Sequence[str]
) -> None:
    """A horizontal bar for each of *names*, first on top, with its extremes and its value."""
    rows = range(len(names))
    medians = [value.median for value in values]
    spread = [
        [value.median - value.low for value in values],
        [value.high - value.median for value in values],
    ]
    drawn = axes.barh(rows, medians, xerr=spread, color=colours, ecolor="black", capsize=3)
    axes.bar_label(drawn, [f"{median:.3g}" for median in medians], padding=6)
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    axes.margins(x=0.15)


def bound(axes: Any, value: float, label: str, *, style: str = "--") -> None:
    """A line for what is wanted, or for what no way can pass."""
    axes.axvline(value, color="black", linestyle=style, linewidth=1.2, label=label)


def _legend_below(axes: Any) -> None:
    """Where it hides no bar."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22))


def _draw_sizes(folder: Path) -> None:
    """Bytes that reach one host in each step, and what finer methods would bring."""
    sizes, finer = SIZES.load(folder), BOUNDS.load(folder)
    if not sizes:
        return
    rows = {(row.strategy, row.step): row for row in sizes.results if row.hosts == 1}
    # the bounds have a lane of their own below the bars
    thickness = 0.8 / (len(_STRATEGIES) + 1)
    with figure(folder / "sizes.svg", size=(9, 6)) as axes:
        for number, (strategy, colour) in enumerate(_STRATEGIES.items()):
            points = [
                step_number - 0.4 + (number + 0.5) * thickness for step_number in range(len(STEPS))
            ]
            values = [rows[strategy, step.name].to_host.median / MB for step in STEPS]
            drawn = axes.barh(points, values, thickness, color=colour, label=strategy)
            axes.bar_label(drawn, [f"{value:.3g}" for value in values], padding=2, fontsize=8)
        for row_at, step in enumerate(STEPS):
            limit = rows[_OURS, step.name].limit / MB
            label = "docket's limit: 1.02 × changed layers + 64 KiB" if row_at == 0 else None
            axes.plot([limit, limit], [row_at - 0.45, row_at + 0.45], "k--", lw=1.2, label=label)
        for method, (marker, colour) in _BOUNDS.items():
            if finer is None:
                break
            bounds_by_step = {
                bound.step: bound.to_host / MB for bound in finer.results if bound.method == method
            }
            axes.plot(
                [bounds_by_step[step.name] for step in STEPS],
                [step_number + 0.4 - thickness / 2 for step_number in range(len(STEPS))],
                marker,
                color=colour,
                label=f"bound: {method}",
                markeredgecolor="white",
            )
        axes.set_xscale("log")
        axes.set_yticks(range(len(STEPS)), [step.name for step in STEPS])
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel("MB that reach one host (logarithmic)")
        axes.set_title("What a deploy brings to a host")
        axes.figure.legend(loc="outside lower center", ncols=2)


def _draw_registry(folder: Path) -> None:
    """Bytes that leave the registry by how many hosts pull at once."""
    sizes = SIZES.load(folder)
    if not sizes:
        return
    with figure(folder / "registry.svg", columns=len(STEPS), size=(14, 4)) as panels:
        for axes, step in zip(panels, STEPS, strict=True):
            for strategy, colour in _STRATEGIES.items():
                rows = [
                    row
                    for row in sizes.results
                    if row.step == step.name and row.strategy == strategy
                ]
                _draw_fleets(axes, rows, colour, strategy)
            once = next(r for r in sizes.results if r.step == step.name and r.strategy == _OURS)
            axes.axhline(
                once.changed / MB, color="black", ls="--", lw=1.2, label="changed layers, once"
            )
            axes.set(
                xscale="log",
                yscale="log",
                title=step.name,
                xlabel="hosts at once (hollow: computed)",
            )
            axes.set_xticks(FLEETS, [str(hosts) for hosts in FLEETS])
            axes.minorticks_off()
        panels[0].set_ylabel("MB that leave the registry (log.)")
        panels[0].figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4
        )


def _draw_fleets(axes: Any, rows: Sequence[Row], colour: str, label: str) -> None:
    axes.plot(
        [row.hosts for row in rows],
        [row.from_registry / MB for row in rows],
        color=colour,
        label=label,
    )
    for row in rows:
        filled = colour if row.measured else "white"
        axes.plot(row.hosts, row.from_registry / MB, "o", color=colour, markerfacecolor=filled)


def _draw_push(folder: Path) -> None:
    """Seconds of a push, cold and unchanged."""
    result = PUSH.load(folder)
    if not result:
        return
    tools = {row.tool: row for row in result.results}
    with figure(folder / "push.svg", columns=2, size=(11, 3.8)) as (cold, again):
        names = [name for name in tools if name != push.EXPORT]
        colours = [BLUE if name.startswith("docket ") else ORANGE for name in names]
        bars(cold, names, [tools[name].cold.wall for name in names], colours)
        bound(cold, tools[push.DOCKER].cold.wall.median / 4, "a quarter of docker push")
        cold.set(xlabel="seconds", title="Push into an empty registry")
        _legend_below(cold)
        names = list(tools)
        colours = [BLUE if name.startswith("docket ") else ORANGE for name in names]
        bars(again, names, [tools[name].unchanged.wall for name in names], colours)
        bound(again, tools[push.EXPORT].cold.wall.median / 10, "a tenth of an export")
        again.set(xlabel="seconds", title="Push of an unchanged image; docker save")
        _legend_below(again)


def _draw_pull(folder: Path) -> None:
    """Seconds of a pull, cold and changed."""
    result = PULL.load(folder)
    if not result:
        return
    docker, docket, load = (
        pull.of_tool(result.results, tool)
        for tool in (pull.DOCKER_PULL, pull.DOCKET_PULL, pull.DOCKER_LOAD)
    )
    names = [docker.tool, docket.tool]
    with figure(folder / "pull.svg", columns=2, size=(11, 2.7)) as (cold, changed):
        bars(cold, names, [docker.cold.wall, docket.cold.wall], [ORANGE, BLUE])
        bound(cold, docker.cold.wall.median / 1.5, "docker pull / 1.5")
        bound(cold, load.cold.wall.median, "docker load, in which docket's pull ends", style=":")
        cold.set(xlabel="seconds", title="Pull into an empty engine")
        _legend_below(cold)
        bars(changed, names, [docker.changed.wall, docket.changed.wall], [ORANGE, BLUE])
        bound(changed, docket.cold.wall.median * 0.3, "0.3 of docket's cold pull")
        changed.set(xlabel="seconds", title="Pull of a release with a new app layer")
        _legend_below(changed)


def _draw_ingest(folder: Path) -> None:
    """MB/s that the store takes in, beside what no store can pass here."""
    result = STORE.load(folder)
    if not result:
        return
    rows = result.results.ingest
    with figure(folder / "ingest.svg", size=(8, 2.7)) as axes:
        names = [f"{row.streams} at a time" for row in rows]
        bars(axes, names, [_in_mb(row.rate) for row in rows], [BLUE] * len(rows))
        for row_at, row in enumerate(rows):
            limit = row.limit.median / MB
            label = "limit of hashing, decompression and disk" if row_at == 0 else None
            axes.plot([limit, limit], [row_at - 0.45, row_at + 0.45], "k--", lw=1.2, label=label)
        axes.set(xlabel="MB/s of stored layers", title="Layers into the store")
        _legend_below(axes)


def _draw_index(folder: Path) -> None:
    """Seconds of a collection by blobs."""
    result = INDEX.load(folder)
    if not result:
        return
    counts = [row.blobs for row in result.results]
    with figure(folder / "gc.svg", size=(7, 3.2)) as axes:
        axes.loglog(
            counts, [row.gc_seconds for row in result.results], "o-", color=BLUE, label="gc"
        )
        axes.axhline(60, color="black", ls="--", lw=1.2, label="60 s, wanted at a million blobs")
        axes.set(xlabel="blobs in the index", ylabel="seconds", title="One collection of garbage")
        axes.legend()


def _in_mb(rate: Summary) -> Summary:
    return Summary(rate.median / MB, rate.low / MB, rate.high / MB, rate.runs)
