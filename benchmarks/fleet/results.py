"""Runs that are kept in a folder: as JSON, as figures, and as a page that tells them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.machine import this_machine

_FILE = "fleet.json"
_COLUMNS = (
    *("", "image, MB", "hosts", "Mb/s", "T*, s", "p50 / T*", "p99 / T*", "last / T*"),
    *("fetch p50 / T*", "left the source, images", "source CPU, s", "host CPU, s", "machine busy"),
)


def load(folder: Path) -> list[dict[str, Any]]:
    """All runs that *folder* has, by strategy, size and number of hosts."""
    path = folder / _FILE
    found: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []
    return sorted(found, key=_key)


def keep(run: dict[str, Any], folder: Path) -> None:
    """Put *run*, as `report.as_json` gives it, into *folder*, in the place of one like it."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = asdict(this_machine(folder))
    # read now: another lab may have put its own there meanwhile
    runs = [one for one in load(folder) if _key(one) != _key(run)]
    runs = sorted([*runs, {**run, "machine": machine}], key=_key)
    (folder / _FILE).write_text(json.dumps({"runs": runs}) + "\n")
    (folder / "README.md").write_text("\n".join(_page(runs)) + "\n")


def _key(run: dict[str, Any]) -> tuple[str, int, float, int]:
    return run["strategy"], run["payload"], run["shape"]["mbit"], run["hosts"]


def _page(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "# Deploys to a fleet over links with limits"
    yield ""
    yield (
        "Made by `python -m benchmarks.fleet`. All hosts begin at once; each has one link, as fast "
        "in both directions. Times are from the command's start; *fetch* is without the start of "
        "the program. T* = S/B · (1 + ⌊log2 N⌋/M) for S bytes in M pieces on links of B; headers "
        "alone take 5 % more. What left the source is counted at its link, with headers. A time "
        "with ~ is worked out from what had come when the run was stopped."
    )
    yield ""
    yield from (f"- {place}" for place in dict.fromkeys(map(_place, runs)))
    yield ""
    yield f"| {' | '.join(_COLUMNS)} |"
    yield f"|{'---|' * len(_COLUMNS)}"
    for run in runs:
        yield f"| {' | '.join(_cells(run))} |"
    yield ""
    yield from _compared(runs)
    yield ""
    for plot in ("ratios", *(stem(run) for run in runs)):
        yield f"![{plot}]({plot}.svg)"
        yield ""


def stem(run: dict[str, Any]) -> str:
    """The name of the run's own figure."""
    return f"curves-{run['strategy']}-{run['payload'] // 10**6}MB-{run['hosts']}"


def _place(run: dict[str, Any]) -> str:
    machine = run["machine"]
    return (
        f"commit {machine['commit']}, {machine['date']}; {machine['processors']} × "
        f"{machine['processor']}, Linux {machine['kernel']}; queues of "
        f"{run['shape']['buffer_ms']:g} ms at each link"
    )


def _cells(run: dict[str, Any]) -> list[str]:
    ratio, fetch = run["ratio"], run["fetch_ratio"]
    last = f"{run['expected'] / run['t_star']:.2f}"
    return [
        run["strategy"],
        f"{run['payload'] / 1e6:.0f}",
        str(run["hosts"]),
        f"{run['shape']['mbit']:g}",
        f"{run['t_star']:.1f}",
        *(f"{ratio[name]:.3f}" if ratio else "" for name in ("p50", "p99")),
        last if run["finished"] else f"~{last}",
        f"{fetch['p50']:.3f}" if fetch else "",
        f"{run['egress']['payloads']:.2f}",
        f"{run['source']['cpu']:.1f}",
        f"{run['peers']['cpu']['p50']:.1f}",
        f"{run['busy']:.2f}",
    ]


def _compared(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """docket beside the other ways, and large crowds beside small ones."""
    ours = [run for run in runs if run["strategy"] == "docket"]
    for run in ours:
        for other in runs:
            alike = _key(other)[2:] == _key(run)[2:] and other["strategy"] != "docket"
            # the original moves the whole archive, so sizes differ; the image is the same
            same = other["strategy"] == "original" or other["payload"] == run["payload"]
            if alike and same:
                yield (
                    f"- {run['hosts']} hosts, {run['payload'] / 1e6:.0f} MB: the last host has "
                    f"it {other['expected'] / run['expected']:.1f} times sooner than by "
                    f"`{other['strategy']}`."
                )
    for size in dict.fromkeys(_key(run)[1:3] for run in ours):
        crowds = [run for run in ours if _key(run)[1:3] == size]
        if len(crowds) > 1:
            few, many = crowds[0], crowds[-1]
            yield (
                f"- {size[0] / 1e6:.0f} MB: {many['hosts']} hosts take "
                f"{many['seconds']['p50'] / few['seconds']['p50']:.2f} times as long as "
                f"{few['hosts']} (medians)."
            )
