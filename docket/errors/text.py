"""An error as one line for people."""

from __future__ import annotations

MAX_SUMMARY = 1000
"""Characters of the longest line that shows an error."""


def summary(error: BaseException) -> str:
    """One line of at most `MAX_SUMMARY` characters that says what *error* is, for people.

    Messages quote what came in: nothing in it drives a terminal or fills it.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    shown = printable(text[:MAX_SUMMARY])
    return shown if len(shown) < MAX_SUMMARY else f"{shown[: MAX_SUMMARY - 1]}…"


def printable(text: str) -> str:
    """*text* in one line, its control characters and undecodable bytes as escapes."""
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]
