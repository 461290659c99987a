"""The agent's configuration file: a TOML table of the command's options."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

SYSTEM_FILE = Path("/etc/docket/agent.toml")
"""Read without ``--config``, if it is there."""

_NOT_IN_FILES = frozenset({"config", "as_json", "help"})


def load_settings(path: Path, context: click.Context) -> dict[str, Any]:
    """The values of the command's options that the file at *path* gives, by parameter name.

    Keys are the options' long names. Raises UsageError with file, line and key, and OSError when
    the file can't be read.
    """
    content = path.read_bytes()
    try:
        text = content.decode()
        table = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.UsageError(f"{path}: {error}") from error
    options = _options(context.command)
    values = {}
    for key, value in table.items():
        where = f"line {_line_of(text, key)}: {key}"
        if key not in options:
            known = ", ".join(sorted(options))
            raise click.UsageError(f"{path}, {where} is no option of docket agent; it has {known}")
        parameter = options[key]
        values[str(parameter.name)] = _checked(context, path, where, parameter, value)
    return values


def _options(command: click.Command) -> dict[str, click.Option]:
    """The options by the names that they have in a file."""
    return {
        spelling.removeprefix("--"): parameter
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name not in _NOT_IN_FILES
        for spelling in parameter.opts
        if spelling.startswith("--")
    }


def _checked(
    context: click.Context, path: Path, where: str, parameter: click.Option, value: Any
) -> Any:
    """*value* as the command line would have it; click converts it once more."""
    if isinstance(value, dict) and parameter.multiple:
        value = [f"{name}={text}" for name, text in value.items()]
    if isinstance(value, list) is not parameter.multiple or isinstance(value, dict):
        expected = "a list" if parameter.multiple else "one value"
        raise click.UsageError(f"{path}, {where} needs {expected}")
    plain = [str(item) for item in value] if isinstance(value, list) else str(value)
    try:
        parameter.process_value(context, plain)
    except click.BadParameter as error:
        raise click.UsageError(f"{path}, {where}: {error.message}") from error
    return plain


def _line_of(text: str, key: str) -> int:
    """The line that gives *key* its value, or begins its table."""
    pattern = re.compile(rf"""\s*\[?\s*["']?{re.escape(key)}["']?\s*(?:[=.\]])""")
    lines = text.splitlines()
    return next((number for number, line in enumerate(lines, 1) if pattern.match(line)), 1)


def read_settings(
    context: click.Context, _parameter: click.Parameter, path: Path | None
) -> Path | None:
    """Take the file's values as defaults of the command's options, for click: env and line win.

    What is given before ``agent``, such as ``docket -h HOST agent``, wins too.
    """
    chosen = path or (SYSTEM_FILE if SYSTEM_FILE.exists() else None)
    if chosen is None:
        return None
    given = _given(context.parent)
    settings = load_settings(chosen, context)
    context.default_map = {name: value for name, value in settings.items() if name not in given}
    return chosen


def settings_again(context: click.Context, path: Path | None) -> dict[str, Any]:
    """All options of *context*, with those that come from the file as it is now.

    Raises UsageError and OSError.
    """
    fresh = load_settings(path, context) if path and path.exists() else {}
    values = dict(context.params)
    fixed = _given(context) | {"config"}
    for parameter in context.command.params:
        name = str(parameter.name)
        if name not in fixed:
            value = fresh.get(name, parameter.get_default(_without_map(context)))
            values[name] = parameter.process_value(context, value)
    return values


def _given(context: click.Context | None) -> set[str]:
    """The options that the command line or the environment gives."""
    sources = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    if context is None:
        return set()
    return {name for name in context.params if context.get_parameter_source(name) in sources}


def _without_map(context: click.Context) -> click.Context:
    """A context in which the file has no say."""
    return click.Context(context.command, parent=context.parent)
