"""The program that the tests of the API start: a registry that prints its URL."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from docket.daemon.registry import ServerOptions, serve


def tell(url: str) -> None:
    """Say where the registry answers."""
    os.write(1, f"{url}\n".encode())


if __name__ == "__main__":
    options = ServerOptions(
        location=Path(sys.argv[1]), bind="127.0.0.1", port=0, pin_seconds=float(sys.argv[2])
    )
    serve(options, on_ready=tell)
