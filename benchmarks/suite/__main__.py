"""All measurements in one command, with their plots and report.

    python -m benchmarks.suite [--full] [--only SECTION ...] [--images DIR] [--out DIR]

Builds the family of images (the small one, or with --full the one of real size), measures each
section in turn, and writes results as JSON, plots as SVG and PNG, and the report README.md. With
--only the report has what was measured before for the other sections; --only without a section
makes plots and report anew.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import this_machine
from benchmarks.suite import plots, report
from benchmarks.suite.sections import FULL, QUICK, SECTIONS
from tests.support.debian import PartMissing, StepFailed
from tests.support.image_family.build import build

_BENCHMARKS = Path(__file__).parents[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="benchmarks.suite", description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="images of real size, and more blobs")
    parser.add_argument("--only", nargs="*", choices=list(SECTIONS), help="measure only these")
    parser.add_argument("--images", type=Path, metavar="DIR", help="where images are kept")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where measuring writes")
    options = parser.parse_args(argv)
    scale, family = (FULL, "full") if options.full else (QUICK, "small")
    out = options.out or _BENCHMARKS / "results" / family
    out.mkdir(parents=True, exist_ok=True)
    chosen = list(SECTIONS) if options.only is None else options.only
    if chosen:
        try:
            images = build(options.images or _BENCHMARKS / "built" / family, small=not options.full)
        except (PartMissing, StepFailed) as error:
            print(f"benchmarks.suite: {error}", file=sys.stderr)
            return 1
    for name in chosen:
        began = time.monotonic()
        print(f"{name} …", end=" ", flush=True)
        with tempfile.TemporaryDirectory(prefix="docket-bench-", dir=options.scratch) as temporary:
            machine = this_machine(Path(temporary))
            try:
                results = SECTIONS[name].measure(images, Path(temporary), scale)
            except PartMissing as error:
                print(f"left out: {error}")
                continue
        SECTIONS[name].save(out, machine, results)
        print(f"{time.monotonic() - began:.0f} s", flush=True)
    plots.draw(out)
    print(report.write(out))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
