"""The command line: the group of all commands, and which error ends them with which exit code."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from docket import errors
from docket.commands import terminal
from docket.commands.agent import agent
from docket.commands.completion import completion
from docket.commands.fsck import FOUND_DAMAGE, fsck
from docket.commands.gc import gc
from docket.commands.images import images
from docket.commands.inspect import inspect
from docket.commands.options import Options, shared_options
from docket.commands.plan import plan
from docket.commands.pull import pull
from docket.commands.push import push
from docket.commands.registry import registry
from docket.commands.rm import rm
from docket.commands.version import version

EXIT_CODES = {
    0: "done",
    1: "another error",
    2: "wrong usage",
    3: "no such image, blob or file",
    4: "bad input: name, archive, manifest, digest",
    5: "the registry can't be reached, or refused",
    6: "the container engine can't be reached, or refused",
    7: "the store is in use, full, damaged, of another format, or has no folder",
    FOUND_DAMAGE: "docket fsck found damage",
    130: "interrupted",
}
"""What each exit code means."""

_ERROR_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.NotFound, 3),
    (errors.EngineImageUnknown, 3),
    (FileNotFoundError, 3),
    (errors.InvalidInput, 4),
    (errors.RegistryError, 5),
    (errors.EngineError, 6),
    (errors.StoreError, 7),
    (KeyboardInterrupt, 130),
)
"""The exit code of each error; the first that fits counts, any other error is 1."""

_EPILOG = "\b\nExit codes:\n" + "\n".join(
    f" {code:3}  {meaning}" for code, meaning in EXIT_CODES.items()
)


@click.group(
    epilog=_EPILOG,
    context_settings={"help_option_names": ["--help"], "max_content_width": 100},
)
@shared_options
@click.pass_context
def cli(
    context: click.Context,
    host: str | None,
    port: int | None,
    location: Path | None,
    as_json: bool | None,
    quiet: bool | None,
) -> None:
    """Deploy container images to many hosts through BitTorrent, layer by layer.

    Start a registry with "docket registry"; push an image once; pull it on every host. A host
    fetches only the layers that it lacks, mostly from other hosts.
    """
    context.obj = Options().override(host, port, location, as_json, quiet)


for command in (
    registry,
    push,
    pull,
    plan,
    images,
    inspect,
    rm,
    gc,
    fsck,
    agent,
    version,
    completion,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line; an error ends in one line and a documented exit code."""
    try:
        code = cli.main(prog_name="docket", standalone_mode=False)
    except click.exceptions.Exit as end:
        code = end.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        terminal.print_error("docket: interrupted")
        code = _exit_code(KeyboardInterrupt())
    except (errors.DocketError, OSError) as error:
        terminal.print_error(f"docket: {_one_line(error)}")
        code = _exit_code(error)
    sys.exit(code if isinstance(code, int) else 0)


def _exit_code(error: BaseException) -> int:
    return next((code for kind, code in _ERROR_CODES if isinstance(error, kind)), 1)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return errors.summary(error)


if __name__ == "__main__":
    main()
