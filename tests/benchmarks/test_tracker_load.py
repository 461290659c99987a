"""The tracker of a real registry with as many peers as a fleet has."""

from __future__ import annotations

from pathlib import Path

from benchmarks.load.tracker import Load, measured, target

PEERS = 15_000
MOST_MEMORY = 40_000_000
RATE = 1000  # announces a second of so many peers, at the interval that they are told


def test_fifteen_thousand_peers_are_answered_and_fit_into_memory(tmp_path: Path) -> None:
    """Announces of a whole fleet, on new connections, lose none and cost some bytes a peer."""
    with target(tmp_path, size=100_000) as at:
        before = at.resident()
        once = measured(at, Load("once", at.port, at.info_hash, PEERS, 0, 0, keep_alive=False))
        grown = at.resident() - before
        steady = measured(
            at, Load("steady", at.port, at.info_hash, PEERS, 2, RATE, keep_alive=False)
        )
        assert once.failed == steady.failed == 0
        assert at.peers() == PEERS
    assert grown < MOST_MEMORY
