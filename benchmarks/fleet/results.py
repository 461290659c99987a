"""Runs that are kept in a folder: as JSON, as plots, and as a page about them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.fleet.shorten import made_of
from benchmarks.result_store import ResultStore, Run, commands, commit, table

_UNUSUAL = re.compile(r"[^\w.-]+")


def stem(run: Run) -> str:
    """The name of the run's own figure; no other stored run has it."""
    shape = run["shape"]
    parts = [
        run["strategy"],
        _UNUSUAL.sub("-", run.get("image", "").removesuffix(".tar")),
        f"{_megabytes(run)}MB",
        f"{shape['mbit']:g}Mbit",
        f"buffer{shape['buffer_ms']:g}",
        f"delay{shape['delay_ms']:g}" if shape["delay_ms"] else "",
        f"loss{shape['loss']:g}" if shape["loss"] else "",
        "repeat" if run.get("before") else "",
        f"{run['at_once']}-at-once" if run.get("at_once") else "",
        str(run["hosts"]),
    ]
    return "-".join(["curves", *filter(None, parts)])


def line(run: Run) -> str:
    """What runs have in common that differ only in the number of hosts."""
    return f"{run['strategy']}, {_matter(run)}"


def _key(run: Run) -> tuple[Any, ...]:
    image = (run["strategy"], _megabytes(run), run.get("image", ""), *_link(run))
    return *image, run.get("before", ""), run.get("at_once", 0), run["hosts"]


def _megabytes(run: Run) -> int:
    return round(int(run["payload"]) / 1e6)


def _link(run: Run) -> tuple[float, ...]:
    return tuple(run["shape"][name] for name in ("mbit", "buffer_ms", "delay_ms", "loss"))


def _matter(run: Run) -> str:
    """The image and the link, in words."""
    shape = run["shape"]
    parts = [
        run.get("image", ""),
        f"{_megabytes(run)} MB",
        f"{shape['mbit']:g} Mb/s",
        f"buffer {shape['buffer_ms']:g} ms",
        f"delay {shape['delay_ms']:g} ms" if shape["delay_ms"] else "",
        f"loss {shape['loss']:g} %" if shape["loss"] else "",
        f"after {run['before']}" if run.get("before") else "",
        f"{run['at_once']} at once" if run.get("at_once") else "",
    ]
    return ", ".join(filter(None, parts))


def _page(runs: Sequence[Run]) -> Iterator[str]:
    yield "# Deploys to a fleet over links with limits"
    yield ""
    yield (
        "Made by `python -m benchmarks.fleet`. All hosts start at once. Each has one link of the "
        "same rate in both directions; *buffer* is the longest wait of a packet in its queue. "
        "Times count from the start of the command; *fetch* leaves out the start of the program. "
        "T* = S/B · (1 + ⌊log2 N⌋/M) for S bytes in M pieces on links of B; headers alone take 5 % "
        "more. Egress is counted at the source's link, with headers. A time with ~ is extrapolated "
        "from what hosts had received when the run was stopped. A commit with + had local changes."
    )
    yield ""
    yield from commands("benchmarks.fleet", _options, runs)
    yield ""
    yield from table(_COLUMNS, runs)
    yield ""
    yield from _compared(runs)
    yield ""
    for plot in ("ratios", *(stem(run) for run in runs)):
        yield f"![{plot}]({plot}.svg)"
        yield ""


def _options(run: Run) -> str:
    shape = run["shape"]
    archive, layers = made_of(run.get("image", ""))
    options = {
        "mbit": f"{shape['mbit']:g}",
        "buffer": f"{shape['buffer_ms']:g}",
        "delay": _set(shape["delay_ms"]),
        "loss": _set(shape["loss"]),
        "ways": run["strategy"],
        "archive": archive,
        "layers": layers,
        "before": run.get("before", ""),
        "at-once": run.get("at_once", ""),
        "limit": "" if run["finished"] else f"{run['limit']:g}",
        "engine": run.get("engine", ""),
    }
    return " ".join(f"--{name} {value}" for name, value in options.items() if value)


def _set(value: float) -> str:
    """Nothing for what is 0, as netem's part mostly is."""
    return f"{value:g}" if value else ""


def _ratio(run: Run, rank: str, name_of_ratio: str = "ratio") -> str:
    return f"{run[name_of_ratio][rank]:.3f}" if rank in run[name_of_ratio] else ""


def _last(run: Run) -> str:
    about = "" if run["finished"] else "~"
    return f"{about}{run['expected'] / run['t_star']:.2f}"


def _last_fifth(run: Run) -> str:
    """What the last fifth of the hosts got from the registry, in images."""
    return f"{run['last_fifth']:.2f}" if "last_fifth" in run and run.get("at_once") else ""


_COLUMNS: dict[str, Callable[[Run], str]] = {
    "way": lambda run: run["strategy"],
    "image": lambda run: run.get("image", ""),
    "held before": lambda run: run.get("before", ""),
    "at once": lambda run: str(run.get("at_once") or ""),
    "MB": lambda run: str(_megabytes(run)),
    "hosts": lambda run: str(run["hosts"]),
    "Mb/s": lambda run: f"{run['shape']['mbit']:g}",
    "buffer, ms": lambda run: f"{run['shape']['buffer_ms']:g}",
    "delay, ms": lambda run: _set(run["shape"]["delay_ms"]),
    "loss, %": lambda run: _set(run["shape"]["loss"]),
    "T*, s": lambda run: f"{run['t_star']:.1f}",
    "p50 / T*": lambda run: _ratio(run, "p50"),
    "p99 / T*": lambda run: _ratio(run, "p99"),
    "last / T*": _last,
    "fetch p50 / T*": lambda run: _ratio(run, "p50", "fetch_ratio"),
    "left the source, images": lambda run: f"{run['egress']['payloads']:.2f}",
    "source CPU, s": lambda run: f"{run['source']['cpu']:.1f}",
    "host CPU, s": lambda run: f"{run['peers']['cpu']['p50']:.1f}",
    "last fifth from the registry": lambda run: _last_fifth(run),
    "machine busy": lambda run: f"{run['busy']:.2f}",
    "commit": commit,
}


def _compared(runs: Sequence[Run]) -> Iterator[str]:
    """docket beside the other strategies, and large fleets beside small ones."""
    docket_runs = [run for run in runs if run["strategy"] == "docket"]
    for run in docket_runs:
        for compared in runs:
            if compared["strategy"] != "docket" and _case(compared) == _case(run):
                about = "" if run["finished"] and compared["finished"] else "about "
                yield (
                    f"- {run['hosts']} hosts, {_matter(run)}: the last host has it {about}"
                    f"{compared['expected'] / run['expected']:.1f} times sooner than by "
                    f"{compared['hosts']} pulls at once by `{compared['strategy']}`."
                )
    for fleets in (
        [run for run in docket_runs if _key(run)[:-1] == case]
        for case in dict.fromkeys(_key(run)[:-1] for run in docket_runs)
    ):
        medians = [run for run in fleets if "p50" in run["seconds"]]
        if len(medians) > 1:
            few, many = medians[0], medians[-1]
            yield (
                f"- {_matter(few)}: {many['hosts']} hosts take "
                f"{many['seconds']['p50'] / few['seconds']['p50']:.2f} times as long as "
                f"{few['hosts']} (medians)."
            )


def _case(run: Run) -> tuple[Any, ...]:
    """What two strategies must have in common to be compared."""
    # they move different bytes for one image; the pieces are those of docket's torrent for all
    return run.get("image", ""), run["pieces"], *_link(run), run["hosts"]


STORE = ResultStore("fleet.json", _key, _page)
"""Runs as `report.as_json` gives them, by way, size, image, link and number of hosts."""
