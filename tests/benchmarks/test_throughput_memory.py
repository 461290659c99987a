"""The registry's memory stays flat while many clients stream blobs in and out."""

from __future__ import annotations

from pathlib import Path

from benchmarks.load.throughput import MANY_CLIENTS, MB, Bodies, Clients, memory_at
from tests.support.servers import docket

LIMIT = 300 * MB
SIZE = 64 * MB


def test_20_clients_streaming_blobs_take_under_300_mb(tmp_path: Path) -> None:
    """20 clients that get a blob and then put one each: the registry's peak memory ≤ 300 MB."""
    with Clients(MANY_CLIENTS) as clients, docket(tmp_path / "registry") as server:
        peak = memory_at(server, clients, Bodies(tmp_path / "head", SIZE))
    # all 20 blobs at once would be 1280 MB
    assert peak["GET"] <= LIMIT
    assert peak["PUT"] <= LIMIT
