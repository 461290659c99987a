"""Kill -9 of a registry under mixed load, again and again: nothing acknowledged is lost.

    python -m tests.torture.kills --kills 2000

Customers push (images that share layers, both in docket's and in Docker's way), move and delete
tags, pull, collect garbage and upload in parts, until the server is killed at a moment drawn by
lot. The next server must have all that was acknowledged, byte by byte; then they go on.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field, fields
from pathlib import Path

from tests.torture.servers import server
from tests.torture.workload import Customer, Tally, at_work

CUSTOMERS = 4
PINS = (0.0, 0.0, 0.02, 60.0)
"""How long answers pin blobs, by lot: short, so that gc has something to take."""

MOST_REQUESTS = 60
"""A server is killed before it has got so many requests."""

_STRAY_SECONDS = 0.004


class Countdown:
    """An event that is set when `tick` was called so many times."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()
        self.over = threading.Event()

    def __call__(self) -> None:
        """One less."""
        with self._lock:
            self._left -= 1
            if self._left <= 0:
                self.over.set()


@dataclass(slots=True)
class Report:
    """What came of it; *starts* in seconds from spawn until ready."""

    seed: int
    what: str = "kills"
    kills: int = 0
    seconds: float = 0.0
    starts: list[float] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    def __str__(self) -> str:
        """For people."""
        tally = self.tally
        starts = f"{statistics.median(self.starts):.2f} s, longest {max(self.starts):.2f} s"
        return (
            f"{self.kills} {self.what} in {self.seconds:.0f} s (seed {self.seed}): "
            f"{len(tally.lost)} lost acknowledged images; "
            f"{tally.pushed} pushed, {tally.pulled} pulled, {tally.deleted} deleted, "
            f"{tally.resumed} uploads that went on, {tally.swept} blobs swept, "
            f"{tally.in_doubt} times a tag was in doubt, {tally.refused} refused for expired pins; "
            f"start {starts}"
        )


class Mixed:
    """The customers of one registry, and where their requests are counted."""

    def __init__(self, *, seed: int, power_cuts: bool = False, customers: int = CUSTOMERS) -> None:
        self._countdown = Countdown(0)
        self.customers = [
            Customer(f"team-{number}/app", seed=seed, tick=self._tick, power_cuts=power_cuts)
            for number in range(customers)
        ]

    def settle(self, url: str) -> None:
        """All customers look at what they were promised."""
        for customer in self.customers:
            customer.settle(url)

    def work(self, url: str, *, requests: int) -> list[threading.Thread]:
        """Customers at work; this returns while they are, after so many *requests*."""
        self._countdown = Countdown(requests)
        threads = at_work(self.customers, url)
        while not self._countdown.over.wait(1.0):
            if not any(thread.is_alive() for thread in threads):
                break
        return threads

    @property
    def lost(self) -> list[str]:
        """What was lost, in words."""
        return [words for customer in self.customers for words in customer.tally.lost]

    def tally(self) -> Tally:
        """All that they have seen."""
        total = Tally()
        for customer in self.customers:
            for row in fields(Tally):
                setattr(
                    total, row.name, getattr(total, row.name) + getattr(customer.tally, row.name)
                )
        return total

    def _tick(self) -> None:
        self._countdown()


def run(location: Path, *, kills: int, seed: int) -> Report:
    """Kill a server at *location* so many times; stops at the first loss."""
    lots = random.Random(seed)
    mixed = Mixed(seed=seed)
    report = Report(seed)
    began = time.monotonic()
    while report.kills <= kills and not mixed.lost:
        with server(location, pin_seconds=lots.choice(PINS)) as running:
            report.starts.append(running.start_seconds)
            mixed.settle(running.url)
            if report.kills == kills:  # the last one is for looking only
                break
            threads = mixed.work(running.url, requests=lots.randrange(1, MOST_REQUESTS))
            # not always between two requests of the customer who counted last
            threading.Event().wait(lots.uniform(0, _STRAY_SECONDS))
            running.kill()
            for thread in threads:
                thread.join()
            report.kills += 1
    report.seconds = time.monotonic() - began
    report.tally = mixed.tally()
    return report


def main() -> int:
    """The command; exit code 1 when anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--folder", type=Path, help="where the store lies; by default below /tmp")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        report = run(Path(folder) / "registry", kills=options.kills, seed=options.seed)
    sys.stdout.write("".join(f"{line}\n" for line in (*report.tally.lost, report)))
    return 1 if report.tally.lost else 0


if __name__ == "__main__":
    sys.exit(main())
