"""Deploy sizes: bytes that reach a host and that leave the registry, strategy by strategy.

Hosts are network namespaces; every byte that goes through their interfaces counts. Segments are
counted before they are cut into packets, so Ethernet's and TCP's headers (some 4 % of full packets)
come on top, for every strategy alike.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.fleet import strategies
from benchmarks.fleet.runner import Command, Race
from benchmarks.fleet.strategies import DEFAULT_LEVEL, StartStrategy, Strategy
from benchmarks.summary import Summary
from tests.support.commands import environment
from tests.support.debian import require
from tests.support.image_family.steps import IMAGES, STEPS, Step
from tests.support.namespaces import Host, namespaces

FLEETS = (1, 10, 50)
"""How many hosts pull at once."""

WHOLE_TAR = "whole tar, one torrent"
GZIP = "docker-registry, gzip layers"
DOCKET_LEVELS = (1, 3, 9, 19)

OVERHEAD = 1.02
ALLOWANCE = 64 * 1024
"""What a host may get: `OVERHEAD` × the changed layers' stored bytes, and so many more."""


@dataclass(frozen=True, slots=True)
class Row:
    """A step of a strategy with *hosts* at once, in bytes.

    *to_host* summarizes the hosts. *changed* is the stored size of the layers that no
    host had, where layers are stored. What isn't *measured* is computed from the largest fleet
    that was.
    """

    strategy: str
    step: str
    hosts: int
    to_host: Summary
    from_registry: int
    changed: int
    measured: bool

    @property
    def limit(self) -> float:
        """What may reach a host."""
        return OVERHEAD * self.changed + ALLOWANCE


def docket_name(level: int) -> str:
    """What docket at a zstd *level* is called."""
    return f"docket, zstd -{level}"


def measure(
    images: Mapping[str, Path], folder: Path, *, fleets: Sequence[int] = FLEETS, most: float
) -> list[Row]:
    """The three ways to deploy along the steps, docket at its own level.

    A fleet whose first step would move more than *most* bytes in all is computed.
    """
    require("skopeo", "skopeo")
    require("docker-registry", "docker-registry")
    starts: dict[str, StartStrategy] = {
        WHOLE_TAR: strategies.baseline_2015,
        GZIP: strategies.gzip_layers,
        docket_name(DEFAULT_LEVEL): strategies.docket(),
    }
    rows = []
    for name, start in starts.items():
        rows += walk(name, start, images, folder, fleets=fleets, most=most)
    return rows


def measure_levels(images: Mapping[str, Path], folder: Path) -> list[Row]:
    """Docket at its other levels along the steps, for one host."""
    rows = []
    for level in DOCKET_LEVELS:
        if level != DEFAULT_LEVEL:
            start = strategies.docket(level)
            rows += walk(docket_name(level), start, images, folder, fleets=(1,))
    return rows


def walk(
    name: str,
    start: StartStrategy,
    images: Mapping[str, Path],
    folder: Path,
    *,
    fleets: Sequence[int],
    most: float = float("inf"),
) -> list[Row]:
    """One strategy along the steps, with new hosts for every fleet."""
    rows: dict[int, list[Row]] = {}
    strategy_folder = folder / name.replace(" ", "-").replace(",", "")
    strategy_folder.mkdir()
    with namespaces(1 + max(fleets)) as hosts, start(strategy_folder, hosts[0]) as strategy:
        stored = {image: strategy.push(image, images[image]).layers for image in IMAGES}
        changed = _changed(stored)
        for count in fleets:
            # all or nothing: what hosts get in a step depends on those before
            if rows and rows[fleets[0]][0].to_host.median * count > most:
                largest = next(fleet for fleet in reversed(rows.values()) if fleet[0].measured)
                by_swarm = name != GZIP
                rows[count] = [_scaled(row, count, by_swarm=by_swarm) for row in largest]
                continue
            rows[count] = []
            for step in STEPS:
                deployed = hosts[1 : 1 + count]
                taken = _deploy(
                    strategy, step, hosts[0], deployed, strategy_folder / f"hosts-{count}"
                )
                row = Row(name, step.name, count, *taken, changed[step.name], measured=True)
                rows[count].append(row)
            # the next fleet needs the space
            shutil.rmtree(strategy_folder / f"hosts-{count}")
    return [row for fleet in rows.values() for row in fleet]


def _deploy(
    strategy: Strategy, step: Step, source: Host, hosts: Sequence[Host], folder: Path
) -> tuple[Summary, int]:
    """Deploy to all *hosts* at once; what reached each, and what left the *source*."""
    commands = []
    for host in hosts:
        strategy_folder = folder / host.name
        argv = strategy.command(step.image, host, strategy_folder, load=False)
        commands.append(Command(host, argv, strategy_folder, environment()))
    before = [host.rx_bytes() for host in hosts]
    left = source.tx_bytes()
    with Race(commands, barrier=True) as race:
        race.wait()
        reached = [host.rx_bytes() for host in hosts]
        left = source.tx_bytes() - left
    return Summary.of(now - then for now, then in zip(reached, before, strict=True)), left


def _changed(stored: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """For each step the stored bytes of layers that no step before it had."""
    host_layers: set[str] = set()
    changed = {}
    for step in STEPS:
        layers = stored[step.image]
        changed[step.name] = sum(
            size for diff_id, size in layers.items() if diff_id not in host_layers
        )
        host_layers |= layers.keys()
    return changed


def _scaled(row: Row, hosts: int, *, by_swarm: bool) -> Row:
    """What *row* would be for more *hosts*: a swarm's registry gives no more than before."""
    left = row.from_registry * (1 if by_swarm else hosts / row.hosts)
    return replace(row, hosts=hosts, from_registry=int(left), measured=False)
