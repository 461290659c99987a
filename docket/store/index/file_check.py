"""Checking LMDB's file before it is mapped: LMDB trusts what it reads, so damage ends the process.

The form of the file is that of LMDB 0.9 (``lmdb.h``, ``mdb.c``): pages with their own number, two
meta pages, B+ trees whose nodes are found by offsets. All pages that the newest meta page leads to
are looked at: 2 µs for each row of the index.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

_MAGIC = 0xBEEFC0DE
_VERSION = 1
_HEADER = struct.Struct("<QHHHH")
_META = struct.Struct("<II8xQ")
_DB = struct.Struct("<IHHQQQQQ")
_END_OF_META = struct.Struct("<QQ")
_NODE = struct.Struct("<HHHH")
_PAGE_NUMBER = struct.Struct("<Q")
_COUNT = struct.Struct("<I")
_NONE = (1 << 64) - 1
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 1, 2, 4, 8
_FORMS = 0x2F
_BIG, _SUB_DATABASE, _DUPLICATES = 1, 2, 4
_MAX_DEPTH = 32
_PAGE_SIZES = frozenset(1 << power for power in range(9, 17))


class _Damage(Exception):
    """What is wrong with the file."""


class _Database(NamedTuple):
    depth: int
    root: int


def damage_in(path: Path) -> str:
    """What is wrong with the LMDB file at *path*, in a few words; empty when nothing is."""
    if path.stat().st_size < 2 * min(_PAGE_SIZES):
        return "it is cut short"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            _File(content).check()
        except _Damage as damage:
            return str(damage)
        except (struct.error, IndexError):
            return "it is cut short"
    return ""


class _File:
    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._size: int = _COUNT.unpack_from(content, _HEADER.size + _META.size)[0]
        if self._size not in _PAGE_SIZES:
            raise _Damage("its first page is none of LMDB's")
        self._used: set[int] = {0, 1}
        self._last = 1

    def check(self) -> None:
        newest = max(self._meta(0), self._meta(1))
        _, self._last, offset = newest
        if (self._last + 1) * self._size > len(self._content):
            raise _Damage("it is cut short")
        free = self._database(offset)
        free_pages = self._pages_that_are_free(self._walk(free))
        self._walk(self._database(offset + _DB.size))
        if any(page in self._used or page > self._last for page in free_pages):
            raise _Damage("its list of free pages is wrong")

    def _meta(self, number: int) -> tuple[int, int, int]:
        start = number * self._size
        page, _, flags, _, _ = _HEADER.unpack_from(self._content, start)
        magic, version, _ = _META.unpack_from(self._content, start + _HEADER.size)
        if (page, flags & _META_PAGE, magic, version) != (number, _META_PAGE, _MAGIC, _VERSION):
            raise _Damage(f"page {number} is none of LMDB's")
        offset = start + _HEADER.size + _META.size
        last, transaction = _END_OF_META.unpack_from(self._content, offset + 2 * _DB.size)
        # transactions are written to both pages in turn
        if transaction and transaction % 2 != number:
            raise _Damage(f"page {number} has the number of another transaction")
        return transaction, last, offset

    def _database(self, offset: int) -> _Database:
        _, _, depth, *_, root = _DB.unpack_from(self._content, offset)
        return _Database(depth, root)

    def _walk(self, database: _Database) -> list[tuple[int, int]]:
        """Check all pages of a tree; where its values lie, as offset and size."""
        values: list[tuple[int, int]] = []
        if database.root == _NONE:
            return values
        if database.depth > _MAX_DEPTH:
            raise _Damage("a tree is too deep")
        level = [database.root]
        for depth in range(database.depth, 0, -1):
            below: list[int] = []
            for page in level:
                start = self._take(page, _LEAF if depth == 1 else _BRANCH)
                if depth == 1:
                    self._check_leaf(page, start, self._size, values)
                else:
                    below += self._children(page, start)
            level = below
        return values

    def _take(self, page: int, form: int, count: int = 1) -> int:
        """Where *page* begins, which nothing else may have led to before."""
        pages = range(page, page + count)
        if page < 2 or pages[-1] > self._last or not self._used.isdisjoint(pages):
            raise _Damage(f"page {page} can't be where it is")
        self._used.update(pages)
        start = page * self._size
        number, _, flags, _, _ = _HEADER.unpack_from(self._content, start)
        if number != page or flags & _FORMS != form:
            raise _Damage(f"page {page} is damaged")
        return start

    def _nodes(self, page: int, start: int, size: int) -> tuple[int, ...]:
        """The offsets of the nodes of the page (or part of one) at *start*."""
        _, _, _, lower, upper = _HEADER.unpack_from(self._content, start)
        if not _HEADER.size <= lower <= upper <= size or lower % 2:
            raise _Damage(f"page {page} is damaged")
        count = (lower - _HEADER.size) // 2
        offsets = struct.unpack_from(f"<{count}H", self._content, start + _HEADER.size)
        if offsets and (min(offsets) < upper or max(offsets) > size - _NODE.size):
            raise _Damage(f"page {page} is damaged")
        return offsets

    def _children(self, page: int, start: int) -> list[int]:
        children = []
        for offset in self._nodes(page, start, self._size):
            low, middle, high, key_size = _NODE.unpack_from(self._content, start + offset)
            if offset + _NODE.size + key_size > self._size:
                raise _Damage(f"page {page} is damaged")
            children.append(low | middle << 16 | high << 32)
        if not children:
            raise _Damage(f"page {page} is damaged")
        return children

    def _check_leaf(self, page: int, start: int, size: int, values: list[tuple[int, int]]) -> None:
        unpack, content = _NODE.unpack_from, self._content
        for offset in self._nodes(page, start, size):
            low, high, flags, key_size = unpack(content, start + offset)
            value = offset + _NODE.size + key_size
            value_size = low | high << 16
            if value + (_PAGE_NUMBER.size if flags & _BIG else value_size) > size:
                raise _Damage(f"page {page} is damaged")
            if flags:
                self._check_special(page, flags, start + value, value_size, values)
            else:
                values.append((start + value, value_size))

    def _check_special(
        self, page: int, flags: int, at: int, size: int, values: list[tuple[int, int]]
    ) -> None:
        """A value that is a large one, a table, or the many values of a key."""
        if flags == _BIG:
            (number,) = _PAGE_NUMBER.unpack_from(self._content, at)
            values.append((self._large(number, size), size))
        elif flags in (_SUB_DATABASE, _SUB_DATABASE | _DUPLICATES) and size == _DB.size:
            self._walk(self._database(at))
        elif flags == _DUPLICATES and size >= _HEADER.size:
            self._check_leaf(page, at, size, [])
        else:
            raise _Damage(f"page {page} is damaged")

    def _large(self, page: int, size: int) -> int:
        """Where the value of *size* bytes begins that has pages of its own from *page* on."""
        if not 2 <= page <= self._last:
            raise _Damage(f"page {page} can't be where it is")
        (count,) = _COUNT.unpack_from(self._content, page * self._size + 12)
        if not _HEADER.size + size <= count * self._size <= len(self._content):
            raise _Damage(f"page {page} is damaged")
        return self._take(page, _OVERFLOW, int(count)) + _HEADER.size

    def _pages_that_are_free(self, values: list[tuple[int, int]]) -> set[int]:
        free: set[int] = set()
        for at, size in values:
            (count,) = _PAGE_NUMBER.unpack_from(self._content, at)
            if (count + 1) * _PAGE_NUMBER.size > size:
                raise _Damage("its list of free pages is wrong")
            pages = struct.unpack_from(f"<{count}Q", self._content, at + _PAGE_NUMBER.size)
            if not free.isdisjoint(pages):
                raise _Damage("its list of free pages is wrong")
            free.update(pages)
        return free
