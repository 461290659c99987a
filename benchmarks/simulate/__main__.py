"""Simulate a fleet that pulls one image at the same moment, or check the model against the lab.

Prints, for each number of hosts, T* = S/B · (1 + ⌊log2 N⌋/M) and what the fetches took in T*, the
images that left the registry, the connections of a host, and the processor time of the model.

  python -m benchmarks.simulate --hosts 100 1000 10000 --mbit 10 --zone 250 --out results
  python -m benchmarks.simulate --check fleet.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import this_machine
from benchmarks.result_store import InvalidResults
from benchmarks.simulate import report, results, validate
from benchmarks.simulate.model import Model
from benchmarks.simulate.report import Outcome
from benchmarks.simulate.scenario import Scenario
from tests.support.locks import exclusive

_FINE = 100
"""Up to this many hosts, blocks are simulated one by one by default."""

_COARSE_GRAIN = 4


def main() -> None:
    """Simulate and print."""
    options = _options()
    try:
        sys.exit(_check(options) if options.check else _simulate(options))
    except (ValueError, InvalidResults) as error:
        sys.exit(f"benchmarks.simulate: {error}")


def simulate(scenario: Scenario) -> Outcome:
    """One run of *scenario*."""
    began = time.process_time()
    model = Model(scenario)
    model.run()
    return report.outcome(model, time.process_time() - began)


def _simulate(options: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    if options.out:
        results.STORE.load(options.out)  # reports a file that can't be added to before any run
    if not options.json:
        _print_row(report.HEADINGS)
    for hosts in options.hosts:
        # as it is now: another commit may have come when the run ends
        machine = this_machine(Path())
        outcome = simulate(_scenario(hosts, options))
        rows.append(report.as_json(outcome))
        if not options.json:
            _print_row(report.row(outcome))
        if options.out:
            results.STORE.keep(report.as_json(outcome), machine, options.out)
    if options.json:
        print(json.dumps({"runs": rows}))
    if options.out and not options.no_plots:
        from benchmarks.simulate.plot import draw  # matplotlib is there only with the extra

        with exclusive(options.out):
            draw(results.STORE.load(options.out), options.out)
    return 0


def _check(options: argparse.Namespace) -> int:
    """0 if the model agrees with all runs of the lab, else 1."""
    _print_row(validate.HEADINGS)
    all_agree = True
    for measured in validate.read(options.check, seed=options.seed, grain=options.grain or 1):
        outcome = simulate(measured.scenario)
        _print_row(validate.row(measured, outcome))
        all_agree = all_agree and validate.agrees(measured, outcome)
    return 0 if all_agree else 1


def _scenario(hosts: int, options: argparse.Namespace) -> Scenario:
    return Scenario(
        hosts=hosts,
        mbit=options.mbit,
        pieces=options.pieces,
        payload=options.payload,
        spread=options.spread,
        delay=options.delay / 1000,
        zone=options.zone,
        grain=options.grain or (1 if hosts <= _FINE else _COARSE_GRAIN),
        look=options.look,
        seed=options.seed,
        limit=options.limit,
        registry_mbit=options.registry_mbit,
    )


def _print_row(cells: Sequence[str]) -> None:
    print("".join(f"{cell:>12}" for cell in cells), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    more = parser.add_argument
    more("--hosts", type=int, nargs="+", default=[10, 100, 1000], metavar="N", help="10 100 1000")
    more("--mbit", type=float, default=10.0, help="rate of each link, both ways, in Mb/s (10)")
    more(
        "--registry-mbit",
        type=float,
        default=0.0,
        metavar="MBIT",
        help="rate of the registry's link (0: as a host's)",
    )
    more("--pieces", type=int, default=789, help="of the image (789)")
    more("--payload", type=int, default=51_671_816, metavar="BYTES", help="of the image (52 MB)")
    more("--spread", type=float, default=1.0, metavar="S", help="hosts begin within so long (1)")
    more("--delay", type=float, default=50.0, metavar="MS", help="of a word between hosts (50)")
    more("--zone", type=int, default=0, metavar="N", help="hosts of one network (0: all)")
    more(
        "--grain",
        type=int,
        help=f"blocks that move at once (1; {_COARSE_GRAIN} above {_FINE} hosts)",
    )
    more("--look", type=float, default=0.2, metavar="S", help="how often a host looks (0.2)")
    more("--seed", type=int, default=1, help="of all that is random (1)")
    more("--limit", type=float, default=3600.0, metavar="S", help="stop a run then (3600)")
    more("--check", type=Path, metavar="FLEET_JSON", help="simulate what the lab has measured")
    more("--json", action="store_true", help="print JSON instead of a table")
    more("--out", type=Path, help="folder for simulate.json, a page and the figure; adds to it")
    more("--no-plots", action="store_true", help="make no figure")
    return parser.parse_args()


if __name__ == "__main__":
    main()
