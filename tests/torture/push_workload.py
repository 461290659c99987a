"""Pushers against gc: whoever is told that a layer is there can rely on it.

The layers that pushers share come and go: tags and manifests are deleted behind most pushes, so
that gc, which runs in a loop without grace, is taking away as garbage what others are just told of.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

from tests.store.samples import Image, image

SHARED = 60
"""Layers that images share; each has three of them and one of its own."""

KEPT_EVERY = 8
"""One push in so many is left as it is; what the others pushed is deleted again."""


class Calls(Protocol):
    """What pushers ask for. Each raises when it is refused; *check* when anything is broken."""

    def push(self, repository: str, pushed: Image, tag: str) -> object: ...
    def check(self, repository: str, tag: str, pushed: Image) -> None: ...
    def delete_tag(self, repository: str, tag: str) -> None: ...
    def delete_manifest(self, repository: str, pushed: Image) -> None: ...
    def collect(self) -> int:
        """One garbage collection; gives how many blobs went."""
        ...


@dataclass(slots=True)
class Race:
    """What came of it: *swept* counts blobs, the other two tell in words."""

    pushed: int = 0
    swept: int = 0
    refused: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    alive: dict[tuple[str, str], Image] = field(default_factory=dict)


class PushClock:
    """Time that passes as pushes end, so that pins run out; but never a lifetime within one push.

    Seconds. That is what is promised: a blob stays for a pin's lifetime, and a push that takes
    longer than that has no claim on it.
    """

    def __init__(self, *, lifetime: float, step: float) -> None:
        self._now = 0.0
        self._lifetime = lifetime
        self._step = step
        self._begun: dict[int, float] = {}
        self._lock = threading.Lock()

    def __call__(self) -> float:
        """The time."""
        return self._now

    def pass_by(self, seconds: float) -> None:
        """Let *seconds* pass, or as many as the pushes under way allow."""
        with self._lock:
            latest = min(self._begun.values(), default=float("inf")) + self._lifetime - 1
            self._now = max(self._now, min(self._now + seconds, latest))

    @contextmanager
    def push(self) -> Iterator[None]:
        """A push is under way inside; time passes at its end."""
        me = threading.get_ident()
        with self._lock:
            self._begun[me] = self._now
        try:
            yield
        finally:
            with self._lock:
                del self._begun[me]
            self.pass_by(self._step)


@cache
def picture(*seeds: str) -> Image:
    """A small image, made once."""
    return image(*seeds, size=200)


def race(calls: Calls, *, pushers: int, pushes: int, seed: int) -> Race:
    """So many *pushers* do so many *pushes* in all while garbage is collected without a pause.

    Every image is checked when its push was acknowledged, and all that were left once more at the
    end, when everybody is done.
    """
    result = Race()
    over = threading.Event()

    def collector() -> None:
        while not over.is_set():
            result.swept += calls.collect()

    def pusher(number: int) -> None:
        lots = random.Random(f"{seed} {number}")
        for at in range(pushes // pushers):
            _one_push(calls, result, lots, f"team-{number}/app", at)

    with ThreadPoolExecutor(pushers + 1) as pool:
        collecting = pool.submit(collector)
        try:
            for _ in pool.map(pusher, range(pushers)):
                pass
        finally:
            over.set()
        collecting.result()
    for (repository, tag), pushed in result.alive.items():
        _check(calls, result, repository, tag, pushed)
    return result


def _one_push(calls: Calls, result: Race, lots: random.Random, repository: str, at: int) -> None:
    shared = sorted(lots.sample(range(SHARED), 3))
    pushed = picture(*(f"shared {number}" for number in shared), f"own {repository} {at % 5}")
    keep = at % KEPT_EVERY == 0
    tag = "kept" if keep else f"passing-{at % 3}"
    try:
        calls.push(repository, pushed, tag)
    except Exception as error:
        result.refused.append(f"push {at} of {repository}: {error!r}")
        return
    result.pushed += 1
    _check(calls, result, repository, tag, pushed)
    if keep:
        result.alive[repository, tag] = pushed
    elif at % 2:
        calls.delete_tag(repository, tag)
    else:
        calls.delete_manifest(repository, pushed)


def _check(calls: Calls, result: Race, repository: str, tag: str, pushed: Image) -> None:
    try:
        calls.check(repository, tag, pushed)
    except Exception as error:
        result.broken.append(f"{repository}:{tag} is broken: {error!r}")
