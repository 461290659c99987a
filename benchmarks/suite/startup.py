"""How long a registry takes to start on a store with many blobs, from its spawn until it is ready.

python -m benchmarks.suite.startup --blobs 100000
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import urllib3

from docket.daemon.registry import ServerOptions, open_store
from tests.support.commands import registry


def fill(location: Path, blobs: int) -> None:
    """Put so many small blobs into the store at *location*, through its own calls."""
    with open_store(ServerOptions(location)) as store:
        for number in range(blobs):
            store.blobs.put(b"blob %d" % number, repository=f"team-{number % 100}/app")


def start_seconds(location: Path) -> float:
    """From the spawn of `docket registry` until /readyz says that it is ready."""
    began = time.perf_counter()
    with registry(location) as url, urllib3.PoolManager(retries=False) as pool:
        assert pool.request("GET", f"{url}/readyz").status == 200
        return time.perf_counter() - began


def main() -> None:
    """Print the figures as one line of JSON; times in seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blobs", type=int, default=100_000)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the store lies; by default below /tmp")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        location = Path(temporary) / "registry"
        began = time.perf_counter()
        fill(location, options.blobs)
        filled = time.perf_counter() - began
        starts = [start_seconds(location) for _ in range(options.starts)]
    figures = {
        "blobs": options.blobs,
        "filled": round(filled, 1),
        "first": round(starts[0], 2),
        "median": round(statistics.median(starts), 2),
        "longest": round(max(starts), 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
