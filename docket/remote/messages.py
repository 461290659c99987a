"""Reading what a registry sends: JSON messages, lines and numbers. All of it may be nonsense."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from docket.errors import RegistryRefused

Message = TypeVar("Message")

_NUMBER = re.compile(r"[0-9]{1,18}\Z")


def decoded(message: type[Message], text: bytes, path: str, status: int) -> Message:
    """The JSON in *text* as a value of *message*. Raises `RegistryRefused`."""
    try:
        return msgspec.json.decode(text, type=message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = f"the response is none of docket's: {error}"
        raise RegistryRefused(path, status=status, message=why) from error


def lines(blocks: Iterator[bytes], path: str, *, limit: int) -> Iterator[bytes]:
    """Whole lines of at most *limit* bytes. Raises `RegistryRefused` for a longer one."""
    remainder = b""
    for block in blocks:
        *whole, remainder = (remainder + block).split(b"\n")
        if len(remainder) > limit:
            why = f"a line of the response is longer than {limit} bytes"
            raise RegistryRefused(path, status=200, message=why)
        yield from whole


def number(text: str) -> int:
    """The number that *text* is. Raises ValueError, also for digits of other scripts."""
    if not _NUMBER.match(text):
        raise ValueError(f"{text[:40]!r} is not a number")
    return int(text)
