"""Images of upstreams that are being fetched whole: one wait for each, whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable


class Completions:
    """Used on the event loop alone: a thousand hosts that wait for one image take one thread."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}

    async def wait(
        self, key: Hashable, complete: Callable[[], Awaitable[None]], *, seconds: float
    ) -> bool:
        """Whether *complete*, which runs once for all who wait for *key*, ends within *seconds*.

        It goes on afterwards, whoever leaves. Raises what it raises.
        """
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.ensure_future(_run(complete))
            task.add_done_callback(lambda done: self._end(key, done))
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if done:
            task.result()
        return bool(done)

    def _end(self, key: Hashable, task: asyncio.Task[None]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # it is no news where nobody waits any more


async def _run(complete: Callable[[], Awaitable[None]]) -> None:
    await complete()
