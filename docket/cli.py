"""The command line: the group of all commands, and which error ends them with which exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
from click.shell_completion import shell_complete

from docket import errors
from docket.commands import terminal
from docket.commands.completion import completion
from docket.commands.fleet.agent import agent
from docket.commands.fleet.deploy import INCOMPLETE, deploy
from docket.commands.fleet.deploys import deploys
from docket.commands.fleet.hosts import hosts
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
from docket.signals import on_ending

_PROGRAM = "docket"
_COMPLETE_VARIABLE = "_DOCKET_COMPLETE"
_READER_GONE = 128 + signal.SIGPIPE

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
    INCOMPLETE: "docket deploy did not reach every chosen host",
    128 + signal.SIGHUP: "ended by SIGHUP, cleaned up",
    128 + signal.SIGINT: "ended by Ctrl-C, cleaned up",
    _READER_GONE: "nobody reads the output, as in docket images | head -1",
    128 + signal.SIGTERM: "ended by SIGTERM, cleaned up",
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
    (KeyboardInterrupt, 128 + signal.SIGINT),
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
    hosts,
    deploy,
    deploys,
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


def main() -> NoReturn:
    """Run the command line; an error ends in one line and a documented exit code.

    SIGTERM, SIGHUP and Ctrl-C end a command alike: it removes its unfinished files. A second one
    ends it at once.
    """
    terminal.open_standard_streams()
    on_ending(_stop)
    try:
        code = _run(sys.argv[1:])
    except click.exceptions.Exit as end:
        code = end.exit_code
    except (Exception, KeyboardInterrupt) as error:
        code = _report(error)
    terminal.flush_standard_streams()
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    # cli.main() would turn Ctrl-C and closed pipes into exit codes and lines of its own
    instruction = os.environ.get(_COMPLETE_VARIABLE)
    if instruction:
        return shell_complete(cli, {}, _PROGRAM, _COMPLETE_VARIABLE, instruction)
    with cli.make_context(_PROGRAM, arguments) as context:
        cli.invoke(context)
    return 0


class _Stopped(KeyboardInterrupt):
    """A signal ends the command."""

    def __init__(self, number: int) -> None:
        self.number = number


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    raise _Stopped(number)


def _report(error: BaseException) -> int:
    """Print what *error* is in one line to standard error; gives the exit code."""
    if os.environ.get("DOCKET_DEBUG"):
        with contextlib.suppress(OSError):
            traceback.print_exception(error)
    if isinstance(error, click.ClickException):
        with contextlib.suppress(OSError):
            error.show()
        return error.exit_code
    if isinstance(error, BrokenPipeError) and terminal.reader_is_gone():
        return _READER_GONE
    terminal.print_error(f"docket: {_one_line(error)}")
    return _exit_code(error)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, _Stopped):
        return 128 + error.number
    return next((code for classes, code in _ERROR_CODES if isinstance(error, classes)), 1)


def _one_line(error: BaseException) -> str:
    if isinstance(error, errors.DocketError):
        return errors.summary(error)
    if isinstance(error, OSError) and error.strerror:
        where = f": {os.fsdecode(error.filename)}" if error.filename else ""
        return f"{error.strerror}{where}"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, MemoryError):
        return "not enough memory"
    text = f"{type(error).__name__}: {errors.summary(error)}"
    return text if isinstance(error, OSError) else f"{text} (a bug; DOCKET_DEBUG=1 shows where)"


if __name__ == "__main__":
    main()
