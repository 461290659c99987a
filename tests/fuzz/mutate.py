"""Inputs made from seeds by a random generator: the same number gives the same input."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

_ODD_NUMBERS = (b"-1", b"0", b"00", b"4294967296", b"1152921504606846976", b"9" * 5000, b"1e999")
_ODD_BYTES = b"\x00\x01\x1f\x20\x22\x25\x2e\x2f\x5c\x7f\x80\xc3\xed\xff"
_MOST_BYTES = 1 << 16

Change = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def mutated(seeds: Sequence[bytes], words: Sequence[bytes], *, count: int) -> Iterator[bytes]:
    """All *seeds*, then *count* inputs that changed a little or a lot; *words* come into them."""
    yield from seeds
    for number in range(count):
        chance = random.Random(number)
        content = chance.choice(seeds)
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            change = chance.choice(_CHANGES)
            content = change(chance, content, words if change is _insert_word else seeds)
        yield content[:_MOST_BYTES]


def _flip(chance: random.Random, content: bytes, _seeds: Sequence[bytes]) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _odd_byte(chance: random.Random, content: bytes, _seeds: Sequence[bytes]) -> bytes:
    at = chance.randint(0, len(content))
    return content[:at] + bytes([chance.choice(_ODD_BYTES)]) + content[at + 1 :]


def _cut_out(chance: random.Random, content: bytes, _seeds: Sequence[bytes]) -> bytes:
    start, end = _span(chance, content)
    return content[:start] + content[end:]


def _cut_off(chance: random.Random, content: bytes, _seeds: Sequence[bytes]) -> bytes:
    return content[: chance.randint(0, len(content))]


def _repeat(chance: random.Random, content: bytes, _seeds: Sequence[bytes]) -> bytes:
    start, end = _span(chance, content)
    return content[:end] + content[start:end] * chance.choice((1, 2, 50)) + content[end:]


def _splice(chance: random.Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    second = chance.choice(seeds)
    return content[: chance.randint(0, len(content))] + second[chance.randint(0, len(second)) :]


def _insert_word(chance: random.Random, content: bytes, words: Sequence[bytes]) -> bytes:
    start, end = _span(chance, content)
    return content[:start] + chance.choice((*words, *_ODD_NUMBERS)) + content[end:]


def _odd_number(chance: random.Random, content: bytes, _seeds: Sequence[bytes]) -> bytes:
    """Another number where there is one."""
    digits = [at for at, byte in enumerate(content) if byte in b"0123456789"]
    if not digits:
        return content
    start = end = chance.choice(digits)
    while end < len(content) and content[end] in b"0123456789":
        end += 1
    return content[:start] + chance.choice(_ODD_NUMBERS) + content[end:]


def _span(chance: random.Random, content: bytes) -> tuple[int, int]:
    start = chance.randint(0, len(content))
    return start, min(start + chance.choice((0, 1, 4, 30, 512)), len(content))


_CHANGES: tuple[Change, ...] = (
    _flip,
    _odd_byte,
    _cut_out,
    _cut_off,
    _repeat,
    _splice,
    _insert_word,
    _odd_number,
)
