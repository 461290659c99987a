"""Power cuts under mixed load: nothing acknowledged is lost, nothing wrong is served.

    python -m tests.torture.power_cuts --cuts 200

The store lies on an ext4 of its own, in a file behind a loop device. A cut shuts the filesystem
down without writing out what it holds in memory, neither files nor journal; then the server is
killed, and the next one starts on what was really on the disk. Root only.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.store.samples import assert_sound
from tests.support.disks import Ext4, ext4_disk
from tests.torture.kills import PINS, Mixed, Report
from tests.torture.servers import server

MOST_REQUESTS = 150
"""The power is cut before a server has got so many requests."""


def run(disk: Ext4, *, cuts: int, seed: int) -> Report:
    """Cut the power of *disk* *cuts* times; stops at the first loss."""
    rng = random.Random(seed)
    mixed = Mixed(seed=seed, power_cuts=True)
    report = Report(seed, what="power cuts")
    began = time.monotonic()
    while report.kills < cuts and not mixed.lost:
        with disk.mounted() as folder:
            location = folder / "registry"
            with server(location, pin_seconds=rng.choice(PINS)) as running:
                report.starts.append(running.start_seconds)
                mixed.settle(running.url)
                threads = mixed.work(running.url, requests=rng.randrange(1, MOST_REQUESTS))
                disk.cut()
                running.kill()
            for thread in threads:
                thread.join()
            report.kills += 1
        with disk.mounted() as folder:
            assert_sound(folder / "registry")
    report.seconds = time.monotonic() - began
    report.tally = mixed.tally()
    return report


def main() -> int:
    """The command; exit code 1 when anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    with ext4_disk() as disk:
        report = run(disk, cuts=options.cuts, seed=options.seed)
    sys.stdout.write("".join(f"{line}\n" for line in (*report.tally.lost, report)))
    return 1 if report.tally.lost else 0


if __name__ == "__main__":
    sys.exit(main())
