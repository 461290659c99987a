"""Waiting for images of upstreams: one wait for all who ask."""

from __future__ import annotations

import asyncio

import pytest

from docket.api.upstream.completions import Completions
from docket.errors import BlobUnknown


def test_all_who_wait_share_one_run_that_outlasts_them() -> None:
    """Who gave up, or left, comes back to the same run; the next image has its own."""

    async def scene() -> None:
        completions, runs = Completions(), 0
        end = asyncio.Event()

        async def complete() -> None:
            nonlocal runs
            runs += 1
            await end.wait()

        early = [completions.wait("image", complete, seconds=0.01) for _ in range(100)]
        assert not any(await asyncio.gather(*early))
        left = asyncio.ensure_future(completions.wait("image", complete, seconds=60))
        await asyncio.sleep(0)
        left.cancel()
        late = asyncio.ensure_future(completions.wait("image", complete, seconds=60))
        await asyncio.sleep(0)
        end.set()
        assert await late
        assert runs == 1
        assert await completions.wait("image", complete, seconds=60)
        assert runs == 2

    asyncio.run(scene())


def test_all_who_wait_get_the_error() -> None:
    """An upstream that lacks a layer fails every torrent of that image."""

    async def scene() -> None:
        async def fail() -> None:
            raise BlobUnknown("sha256:0")

        with pytest.raises(BlobUnknown):
            await Completions().wait("image", fail, seconds=60)

    asyncio.run(scene())
