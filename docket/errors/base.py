"""The base of all errors that docket raises on purpose, and the end of interrupted work."""

from __future__ import annotations


class DocketError(Exception):
    """The base of all errors that docket raises on purpose."""


class Stopped(DocketError):
    """Something that takes long was ended before it was done, because the process stops."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was stopped before its end; start it again")
