"""Small edits of TOML files that keep all other text, each proved by parsing the result.

`tomllib` reads TOML but nothing in the standard library writes it. An edit here is made on lines,
and counts only if the result parses to the old values plus the new one.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Table = dict[str, Any]

BEGIN = "# begin docket agent"
END = "# end docket agent"

_BLOCK = re.compile(
    rf"^[ \t]*{re.escape(BEGIN)}[^\n]*\n.*?^[ \t]*{re.escape(END)}[^\n]*(?:\n|\Z)",
    re.MULTILINE | re.DOTALL,
)
_HEADER = re.compile(r"^[ \t]*\[[^\[].*\]\s*(?:#.*)?$")
_ANY_HEADER = re.compile(r"^[ \t]*\[")


class NoSafeEdit(ValueError):
    """No edit of the text gives the values that are needed; the message is for people."""


def parse(text: str) -> Table:
    """The values of *text*; raises `NoSafeEdit` if it isn't TOML."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise NoSafeEdit(f"it is not valid TOML: {error}") from error


def table_at(values: Table, *path: str) -> Table:
    """The table at *path*, empty if it isn't there. Raises `NoSafeEdit` for another type."""
    inner: object = values
    for part in path:
        inner = inner.get(part, {}) if isinstance(inner, dict) else None
        if not isinstance(inner, dict):
            raise NoSafeEdit(f"{part} is not a table")
    return dict(inner) if isinstance(inner, dict) else {}


def tables_at(values: Table, name: str) -> list[Table]:
    """The tables of the array *name*. Raises `NoSafeEdit` for another type."""
    return [row for row in _list_at(values, name) if _has_type(row, dict, name)]


def strings_at(values: Table, name: str) -> list[str]:
    """The strings of the array *name*. Raises `NoSafeEdit` for another type."""
    return [row for row in _list_at(values, name) if _has_type(row, str, name)]


def _list_at(values: Table, name: str) -> list[Any]:
    rows = values.get(name, [])
    return rows if _has_type(rows, list, name) else []


def _has_type(content: object, expected: type, name: str) -> bool:
    if not isinstance(content, expected):
        raise NoSafeEdit(f"{name} has a value of the type {type(content).__name__}")
    return True


def value(content: object) -> str:
    """A string, a truth value, a whole number, or a list of them, as TOML spells it."""
    if isinstance(content, list):
        return f"[{', '.join(map(value, content))}]"
    if isinstance(content, str):
        if any(ord(character) < 32 or ord(character) == 127 for character in content):
            raise NoSafeEdit(f"{content!r} has control characters")
        return json.dumps(content, ensure_ascii=False)
    if isinstance(content, bool):
        return "true" if content else "false"
    if isinstance(content, int):
        return str(content)
    raise NoSafeEdit(f"a value of the type {type(content).__name__} is not expected here")


def key(name: str) -> str:
    """A key, quoted where TOML requires it."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else value(name)


def table(header: str, rows: Mapping[str, object], *, indent: str = "  ") -> str:
    """A table with *header*, brackets and all, and its rows."""
    lines = [f"{indent}{key(name)} = {value(content)}\n" for name, content in rows.items()]
    return f"{header}\n{''.join(lines)}"


def block(reason: str, body: str, *, indent: str = "") -> str:
    """*body* between the marks by which `without_blocks` finds it."""
    return f"{indent}{BEGIN}: {reason}\n{body}{indent}{END}\n"


def without_blocks(text: str) -> str:
    """*text* without what `block` put into it."""
    return _BLOCK.sub("", text)


def with_hosts_first(text: str, addition: str) -> str:
    """Put *addition* before all tables of a hosts.toml: root keys and tables ``[host."<url>"]``.

    containerd tries hosts in the order of their tables. Raises `NoSafeEdit`.
    """
    before = parse(text)
    added = parse(addition)
    hosts = {**added["host"], **table_at(before, "host")}
    expected = {**before, **added, "host": hosts}
    lines = text.splitlines(keepends=True)
    for number in [*_matching(lines, _ANY_HEADER), len(lines)]:
        edited = _joined(lines[:number], addition, lines[number:])
        if _parses_to(edited, expected) and list(tomllib.loads(edited)["host"]) == list(hosts):
            return edited
    raise NoSafeEdit("docket finds no place for its own host before the others")


def with_value(text: str, path: Sequence[str], name: str, content: object, *, reason: str) -> str:
    """Set *name* in the table at *path* to *content*. Raises `NoSafeEdit`."""
    expected = copy.deepcopy(parse(text))
    inner = expected
    for part in path:
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            raise NoSafeEdit(f"{part} is not a table")
    inner[name] = content
    for edited in _edits(text, path, f"{key(name)} = {value(content)}", name, reason):
        if _parses_to(edited, expected):
            return edited
    raise NoSafeEdit(f"docket finds no line where it can set {'.'.join([*path, name])}")


def _edits(
    text: str, path: Sequence[str], assignment: str, name: str, reason: str
) -> Iterator[str]:
    """Candidates: the assignment replaced, added below the table's header, or a new table."""
    lines = text.splitlines(keepends=True)
    assigned = re.compile(rf"^([ \t]*){re.escape(key(name))}[ \t]*=.*$")
    for header in _matching(lines, _HEADER):
        if _path_of(lines[header]) != list(path):
            continue
        for number in range(header + 1, len(lines)):
            if match := assigned.match(lines[number].rstrip("\r\n")):
                replaced = f"{match[1]}{assignment}  # {reason}\n"
                yield "".join([*lines[:number], replaced, *lines[number + 1 :]])
            if _ANY_HEADER.match(lines[number]):
                break
        indent = re.sub(r"\S.*", "", lines[header].rstrip("\r\n")) + "  "
        addition = block(reason, f"{indent}{assignment}\n", indent=indent)
        yield _joined(lines[: header + 1], addition, lines[header + 1 :])
    header_text = f"[{'.'.join(map(key, path))}]"
    yield _joined(lines, block(reason, f"{header_text}\n  {assignment}\n"), [])


def _joined(before: Sequence[str], addition: str, after: Sequence[str]) -> str:
    head = "".join(before)
    if head and not head.endswith("\n"):
        head += "\n"
    return f"{head}{addition}{''.join(after)}"


def _matching(lines: Sequence[str], pattern: re.Pattern[str]) -> list[int]:
    return [number for number, line in enumerate(lines) if pattern.match(line.rstrip("\r\n"))]


def _path_of(header: str) -> list[str] | None:
    try:
        inner = tomllib.loads(header)
    except tomllib.TOMLDecodeError:
        return None
    path = []
    while inner:
        ((name, inner),) = inner.items()
        path.append(name)
    return path


def _parses_to(edited: str, expected: Table) -> bool:
    try:
        return tomllib.loads(edited) == expected
    except (tomllib.TOMLDecodeError, RecursionError):
        return False
