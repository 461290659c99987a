"""Hosts, seeds and registries that die in the middle: the others finish, and soon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from docket.torrent.metainfo import File
from tests.swarm.network import SEEDING, Pulling, Stored, fetch_seconds, network, until


def test_seeder_killed_once_one_copy_is_out(image: Stored, tmp_path: Path) -> None:
    """Every host finishes when the registry dies with all pieces among the hosts."""
    with network(image, tmp_path, hosts=6, mbit=40) as net:
        # slower than the registry's link, so that its copy is out long before the hosts have theirs
        pulls = [net.pull(host, *SEEDING, "--max-download", "2000000") for host in net.others]
        until(Copy.of(image, pulls).is_out, pulls)
        net.registry.kill()
        assert not all(pull.is_done() for pull in pulls)
        reports = [pull.report() for pull in pulls]
    assert all(report["payload"]["http"] == 0 for report in reports)


def test_a_third_of_the_hosts_killed_in_mid_pull(image: Stored, tmp_path: Path) -> None:
    """The others take at most 1.5 times as long as without it."""
    with network(image, tmp_path / "calm", hosts=10, mbit=40) as net:
        pulls = [net.pull(host, *SEEDING) for host in net.others]
        calm = fetch_seconds([pull.report() for pull in pulls])
    with network(image, tmp_path / "deadly", hosts=10, mbit=40) as net:
        pulls = [net.pull(host, *SEEDING) for host in net.others]
        doomed, others = pulls[:3], pulls[3:]
        until(lambda: all(pull.stored() > image.size // 3 for pull in doomed), pulls)
        for pull in doomed:
            pull.kill()
            assert not pull.is_done()
        seconds = fetch_seconds([pull.report() for pull in others])
    assert seconds <= 1.5 * calm


@dataclass(frozen=True, slots=True)
class Copy:
    """The pieces of the layers that are still on no host's disk."""

    image: Stored
    pulls: Sequence[Pulling]
    missing: set[tuple[File, int]]

    @classmethod
    def of(cls, image: Stored, pulls: Sequence[Pulling]) -> Copy:
        """All are missing."""
        layers = image.layers
        return cls(
            image, pulls, {(layer, piece) for layer in layers for piece in range(layer.pieces)}
        )

    def is_out(self) -> bool:
        """Whether the hosts have all pieces among them; what was seen once isn't read again."""
        for layer, piece in list(self.missing):
            if any(pull.has_piece(self.image.metainfo, layer, piece) for pull in self.pulls):
                self.missing.discard((layer, piece))
        return not self.missing
