"""Deploy sizes: bytes that reach a host and that leave the registry, strategy by strategy.

Hosts are network namespaces; every byte that goes through their interfaces counts. Segments are
counted before they are cut into packets, so Ethernet's and TCP's headers (some 4 % of full packets)
come on top, for every strategy alike.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.suite import strategies
from benchmarks.suite.strategies import DEFAULT_LEVEL, LEVELS, StartStrategy, Strategy
from benchmarks.summary import Spread
from tests.support.debian import require
from tests.support.image_family.steps import IMAGES, STEPS, Step
from tests.support.namespaces import Host, namespaces

CROWDS = (1, 10, 50)
"""How many hosts pull at once."""

OVERHEAD = 1.02
ALLOWANCE = 64 * 1024
"""What a host may get: `OVERHEAD` × the changed layers' stored bytes, and so many more."""


@dataclass(frozen=True, slots=True)
class Row:
    """A step of a strategy with *hosts* at once, in bytes.

    *to_host* is the spread over the hosts. *changed* is the stored size of the layers that no
    host had, where layers are stored. What isn't *measured* is computed from the largest crowd
    that was.
    """

    strategy: str
    step: str
    hosts: int
    to_host: Spread
    from_registry: int
    changed: int
    measured: bool

    @property
    def limit(self) -> float:
        """What may reach a host."""
        return OVERHEAD * self.changed + ALLOWANCE


def measure(
    images: Mapping[str, Path], folder: Path, *, crowds: Sequence[int] = CROWDS, most: float
) -> list[Row]:
    """The three ways to deploy along the steps, docket at its own level.

    A crowd whose first step would move more than *most* bytes in all is computed.
    """
    require("skopeo", "skopeo")
    require("docker-registry", "docker-registry")
    chosen: dict[str, StartStrategy] = {
        strategies.WHOLE_TAR: strategies.whole_tar,
        strategies.GZIP: strategies.gzip_layers,
        strategies.docket_name(DEFAULT_LEVEL): strategies.docket(DEFAULT_LEVEL),
    }
    rows = []
    for name, start in chosen.items():
        rows += walk(name, start, images, folder, crowds=crowds, most=most)
    return rows


def measure_levels(images: Mapping[str, Path], folder: Path) -> list[Row]:
    """Docket at its other levels along the steps, for one host."""
    rows = []
    for level in LEVELS:
        if level != DEFAULT_LEVEL:
            name = strategies.docket_name(level)
            rows += walk(name, strategies.docket(level), images, folder, crowds=(1,))
    return rows


def walk(
    name: str,
    start: StartStrategy,
    images: Mapping[str, Path],
    folder: Path,
    *,
    crowds: Sequence[int],
    most: float = float("inf"),
) -> list[Row]:
    """One strategy along the steps, with new hosts for every crowd."""
    found: dict[tuple[str, int], Row] = {}
    with namespaces(1 + max(crowds)) as hosts, ExitStack() as stack:
        place = folder / name.replace(" ", "-").replace(",", "")
        place.mkdir()
        strategy = stack.enter_context(start(place, hosts))
        stored = {image: strategy.push(image, images[image]) for image in IMAGES}
        changed = _changed(stored)
        for count in crowds:
            alone = found.get((STEPS[0].name, crowds[0]))
            # all or nothing: what hosts get in a step depends on those before
            if alone and alone.to_host.median * count > most:
                largest = max(row.hosts for row in found.values() if row.measured)
                rows = [found[step.name, largest] for step in STEPS]
                rows = [_scaled(row, count, by_swarm=name != strategies.GZIP) for row in rows]
            else:
                places = place / f"hosts-{count}"
                rows = []
                for step in STEPS:
                    taken = _deploy(strategy, step, hosts[0], hosts[1 : 1 + count], places)
                    rows.append(
                        Row(name, step.name, count, *taken, changed[step.name], measured=True)
                    )
                # the next crowd needs the space
                shutil.rmtree(places)
            found |= {(row.step, count): row for row in rows}
    return list(found.values())


def _deploy(
    strategy: Strategy, step: Step, server: Host, hosts: Sequence[Host], places: Path
) -> tuple[Spread, int]:
    """Deploy to all *hosts* at once; what reached each, and what left the *server*."""
    for host in hosts:
        (places / host.name).mkdir(parents=True, exist_ok=True)
    before = [host.rx_bytes() for host in hosts]
    left = server.tx_bytes()
    commands = [strategy.command(step.image, host, places / host.name) for host in hosts]
    with _all_done(commands):
        reached = [host.rx_bytes() for host in hosts]
        left = server.tx_bytes() - left
    return Spread.of(now - then for now, then in zip(reached, before, strict=True)), left


@contextmanager
def _all_done(commands: Sequence[Sequence[str]]) -> Iterator[None]:
    """Let all *commands* begin at once; enter once all are done, and end those that serve on."""
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            for argv in commands
        ]
        try:
            for one in running:
                _expect_line(one)
            for one in running:
                assert one.stdin
                one.stdin.write(b"go\n")
                one.stdin.close()
            for one in running:
                _expect_line(one)
            yield
        finally:
            for one in running:
                one.terminate()


def _expect_line(running: subprocess.Popen[bytes]) -> None:
    """Return once *running* has printed a line, or ended well."""
    assert running.stdout
    if not running.stdout.readline() and running.wait():
        raise subprocess.CalledProcessError(running.returncode, running.args)


def _changed(stored: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """For each step the stored bytes of layers that no step before it had."""
    held: set[str] = set()
    changed = {}
    for step in STEPS:
        layers = stored[step.image]
        changed[step.name] = sum(size for diff_id, size in layers.items() if diff_id not in held)
        held |= layers.keys()
    return changed


def _scaled(row: Row, hosts: int, *, by_swarm: bool) -> Row:
    """What *row* would be for more *hosts*: a swarm's registry gives no more than before."""
    left = row.from_registry * (1 if by_swarm else hosts / row.hosts)
    return replace(row, hosts=hosts, from_registry=int(left), measured=False)
