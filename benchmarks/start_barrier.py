"""A Python program that is loaded, then waits for a word on its standard input before it begins.

    python -m benchmarks.start_barrier MODULE ARGUMENT ...

Many hosts that are processes of one machine share its processors. Each loads its program before
any of them begins, as hosts with processors of their own would all at once.
"""

from __future__ import annotations

import importlib
import sys

WAITING = "waiting"


def prepared(module: str, *arguments: str) -> list[str]:
    """The command of ``MODULE.main()``, which prints `WAITING` and waits for a line first."""
    return [sys.executable, "-m", "benchmarks.start_barrier", module, *arguments]


def prepared_program(*argv: str) -> list[str]:
    """The same for a program that is no Python module."""
    return ["sh", "-c", f'echo {WAITING} && read -r _ && exec "$@"', "sh", *argv]


def main() -> None:
    """Load, wait, run."""
    _, name, *arguments = sys.argv
    module = importlib.import_module(name)
    print(WAITING, flush=True)
    sys.stdin.readline()
    sys.argv = [name, *arguments]
    module.main()


if __name__ == "__main__":
    main()
