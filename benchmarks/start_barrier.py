"""A program that is loaded, then waits for a line on its standard input before it begins.

    python -m benchmarks.start_barrier MODULE ARGUMENT ...

Many hosts that are processes of one machine share its processors. Each loads its program before
any of them begins, as hosts with processors of their own would all at once.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

WAITING = "waiting"


def behind_barrier(argv: Sequence[str]) -> list[str]:
    """The command *argv*, which prints `WAITING` and waits for a line before it begins.

    A Python module with a ``main`` function (``python -m MODULE ...``) is imported first.
    """
    if list(argv[:2]) == [sys.executable, "-m"]:
        return [sys.executable, "-m", "benchmarks.start_barrier", *argv[2:]]
    return ["sh", "-c", f'echo {WAITING} && read -r _ && exec "$@"', "sh", *argv]


def main() -> None:
    """Import, wait, run."""
    _, name, *arguments = sys.argv
    module = importlib.import_module(name)
    print(WAITING, flush=True)
    sys.stdin.readline()
    sys.argv = [name, *arguments]
    module.main()


if __name__ == "__main__":
    main()
