"""``docket version``: docket and the libraries that move its bytes."""

from __future__ import annotations

import platform

import click

from docket import __version__
from docket.commands.options import Options, command_options
from docket.commands.terminal import print_json, print_line

_LIBRARIES = ("libtorrent", "torf", "zstandard", "lmdb", "starlette", "uvicorn")


@click.command()
@command_options
def version(options: Options) -> None:
    """Show the versions of docket, Python and the main libraries."""
    import importlib.metadata  # slow to import, and only needed here

    versions = {"docket": __version__, "python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in _LIBRARIES}
    if options.json:
        print_json(versions)
    else:
        for name, number in versions.items():
            print_line(f"{name} {number}")
