"""How fast N hosts get one image at the same moment, in network namespaces with slow links.

Builds a source and N hosts as network namespaces on a bridge, each link shaped both ways, pushes
an image, and has all hosts pull it at once: through docket, from Debian's docker-registry (by
skopeo), and as one torrent of the whole archive by a libtorrent with its defaults. With "--ways
agent" the hosts run docket's agent before, and one "docket deploy" brings the image; --before names
the archive of a release that they hold already. Needs root,
iproute2, docker-registry and skopeo; the figures need matplotlib (pip install 'docket[bench]').
What it made is removed at the end, after Ctrl-C too.

T* = S/B · (1 + ⌊log2 N⌋/M), for an image of S bytes in M pieces and links of B: the bound. The
floor is about 1.05 · T*, for headers of TCP/IP and Ethernet go over the links too.

  python -m benchmarks.fleet --hosts 5 10 20 50 --mbit 16 --folder /dev/shm
  python -m benchmarks.fleet --hosts 10 --mbit 50 --ways docket --archive app.tar --out results
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fleet import report, results
from benchmarks.fleet.lab import AGENT, STRATEGIES, WAYS, Image, Run, Scenario, prepare, run
from benchmarks.fleet.runner import PullFailed
from benchmarks.fleet.shorten import TooFewLayers, first_layers
from benchmarks.machine import this_machine
from benchmarks.result_store import InvalidResults
from tests.support.debian import PartMissing, StepFailed, require
from tests.support.image_family import build
from tests.support.locks import exclusive
from tests.support.netns import Shape

_DEFAULT_IMAGE = "app-python:1.0"
_PARTS = {"ip": "iproute2", "tc": "iproute2", "nsenter": "util-linux"}
_DIRECT_PARTS = {"docker-registry": "docker-registry", "skopeo": "skopeo"}


def main() -> None:
    """Run the laboratory and print what came out."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _run_all(options)
    except KeyboardInterrupt:
        sys.exit("interrupted; all hosts are gone")
    except (PartMissing, StepFailed, PullFailed, InvalidResults, TooFewLayers) as error:
        sys.exit(f"benchmarks.fleet: {error}")


def _run_all(options: argparse.Namespace) -> None:
    if os.geteuid():
        sys.exit("benchmarks.fleet: making network namespaces takes root")
    for command, package in (_PARTS | (_DIRECT_PARTS if "direct" in options.ways else {})).items():
        require(command, package)
    archive = options.archive or _family(options.built)
    shape = Shape(options.mbit, options.buffer, options.delay, options.loss)
    if options.out:
        results.STORE.load(options.out)  # one that can't be added to is told of before any run
    with tempfile.TemporaryDirectory(prefix="docket-fleet-", dir=options.folder) as temporary:
        if options.layers:
            archive = first_layers(archive, options.layers, Path(temporary))
        image = prepare(archive, Path(temporary, "stores"), before=options.before)
        print(f"{archive.name}: {image.size / 1e6:.1f} MB as pushed, {image.pieces} pieces")
        _print_row(report.HEADINGS)
        for hosts in options.hosts:
            for way in options.ways:
                before = options.before.name if options.before else ""
                fleet = (before, options.at_once) if way == AGENT else ()
                scenario = Scenario(hosts, shape, options.limit, options.engine, *fleet)
                # as it is now: another commit may be checked out when the run ends
                machine = this_machine(Path(temporary))
                done = _run_one(way, image, scenario, Path(temporary, "hosts"))
                _print_row(report.row(done))
                if options.out:
                    results.STORE.keep(report.as_json(done), machine, options.out)
    if options.out and not options.no_plots:
        from benchmarks.fleet.plot import draw  # matplotlib is there only with the extra

        with exclusive(options.out):
            draw(results.STORE.load(options.out), options.out)


def _run_one(way: str, image: Image, scenario: Scenario, folder: Path) -> Run:
    def on_made(name: str) -> None:
        print(f"{way}, {scenario.hosts} hosts: nsenter --net=/run/netns/{name}", file=sys.stderr)

    try:
        return run(way, image, scenario, folder, on_made=on_made)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _family(built: Path) -> Path:
    return build.build(built, small=False, only=[_DEFAULT_IMAGE])[_DEFAULT_IMAGE]


def _print_row(cells: Sequence[str]) -> None:
    print("".join(f"{cell:>13}" for cell in cells), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.fleet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--hosts", type=int, nargs="+", default=[5, 10, 20], metavar="N", help="5 10 20")
    add("--mbit", type=float, default=20.0, help="rate of each link, both ways, in Mb/s (20)")
    add("--buffer", type=float, default=50.0, metavar="MS", help="queue of each link, in ms (50)")
    add("--delay", type=float, default=0.0, metavar="MS", help="added one way, by netem (0)")
    add("--loss", type=float, default=0.0, metavar="PERCENT", help="of packets, by netem (0)")
    add("--ways", nargs="+", choices=WAYS, default=list(STRATEGIES), help="all but agent")
    add("--archive", type=Path, help=f"of the image ({_DEFAULT_IMAGE} of the family)")
    add("--before", type=Path, metavar="ARCHIVE", help="agents hold this release before (none)")
    add("--at-once", type=int, default=0, metavar="N", help="agents that fetch together (0: all)")
    add("--layers", type=int, metavar="N", help="only its first layers: a shorter image (all)")
    add("--built", type=Path, default=Path("benchmarks/built/full"), help="where the family lies")
    add("--limit", type=float, default=3600.0, metavar="S", help="stop a run then (3600)")
    add("--engine", default="", metavar="DOCKER_HOST", help="docket's first host loads into it")
    add("--folder", type=Path, help="for the hosts' stores (a temporary one; /dev/shm if it fits)")
    add("--out", type=Path, help="folder for fleet.json, a page and the figures; adds to it")
    add("--no-plots", action="store_true", help="make no figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
