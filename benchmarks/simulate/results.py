"""Simulated runs that are kept in a folder: as JSON, and as a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.result_store import ResultStore, Run, commands, commit, table

_SCALE = {"delay": 1000.0}
"""What an option counts in beside a scenario: milliseconds."""

KIND = ("mbit", "registry_mbit", "payload", "pieces", "spread", "delay", "zone", "look", "seed")
"""Settings that runs have in common of which a line can be drawn against the number of hosts."""

_OPTIONS = (*KIND, "grain", "limit")
"""What the command has options for, but the number of hosts."""


def kind(run: Run) -> tuple[Any, ...]:
    """The values of `KIND`."""
    return tuple(run.get(name, 0) for name in KIND)


def _key(run: Run) -> tuple[Any, ...]:
    return *kind(run), run["hosts"], run["grain"]


def _page(runs: Sequence[Run]) -> Iterator[str]:
    yield "# Deploys to a fleet, simulated"
    yield ""
    yield (
        "Made by `python -m benchmarks.simulate`: docket's own code for the assignment of pieces, "
        "the tracker and the exchange of piece hashes; the rest is a model. Each host has one "
        "link, as fast in both directions; hosts begin within the spread, receive the torrent "
        "(at commit c1b5c08 they had it at once), and look at their peers as often as *look* "
        "says. *grain* blocks of "
        "16 KiB move at once: with more than one the model is coarser. Times are those of the "
        "fetch. T* = S/B · (1 + ⌊log2 N⌋/M) for S bytes in M pieces on links of B; headers alone "
        "take 5 % more. What left the registry is counted with headers and with piece hashes. At "
        "a commit with + files had been changed."
    )
    yield ""
    yield from commands("benchmarks.simulate", _options, runs)
    yield ""
    yield from table(_COLUMNS, runs)
    yield ""
    yield from ("![simulate](simulate.svg)", "")


def _options(run: Run) -> str:
    return " ".join(
        f"--{name.replace('_', '-')} {run[name] * _SCALE.get(name, 1):.10g}"
        for name in _OPTIONS
        if name in run
    )


def _ratio(run: Run, rank: str) -> str:
    return f"{run['fetch_ratio'][rank]:.3f}" if rank in run["fetch_ratio"] else ""


_COLUMNS: dict[str, Callable[[Run], str]] = {
    "hosts": lambda run: f"{run['hosts']:,}",
    "hosts of a network": lambda run: f"{run['zone']:,}" if run["zone"] else "",
    "Mb/s": lambda run: f"{run['mbit']:g}",
    "registry, Mb/s": lambda run: f"{run.get('registry_mbit') or run['mbit']:g}",
    "MB": lambda run: f"{run['payload'] / 1e6:.0f}",
    "pieces": lambda run: f"{run['pieces']:,}",
    "spread, s": lambda run: f"{run['spread']:g}",
    "look, s": lambda run: f"{run['look']:g}" if "look" in run else "",
    "grain": lambda run: str(run["grain"]),
    "T*, s": lambda run: f"{run['t_star']:.1f}",
    "p50 / T*": lambda run: _ratio(run, "p50"),
    "p99 / T*": lambda run: _ratio(run, "p99"),
    "last / T*": lambda run: _ratio(run, "max") if run["finished"] else "not done",
    "left the registry, images": lambda run: f"{run['egress']['payloads']:.2f}",
    "peers of a host": lambda run: f"{run['peers']:.0f}",
    "the model's CPU, s": lambda run: f"{run['cpu']:.1f}",
    "commit": commit,
}

STORE = ResultStore("simulate.json", _key, _page)
"""Runs as `report.as_json` gives them, by scenario, number of hosts and grain."""
