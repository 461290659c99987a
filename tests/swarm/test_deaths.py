"""Hosts, seeds and registries that die in the middle: the others finish, and soon."""

from __future__ import annotations

from pathlib import Path

from tests.swarm.network import SEEDING, Pulling, Stored, fetch_seconds, network, until


def test_seeder_killed_once_one_copy_is_out(image: Stored, tmp_path: Path) -> None:
    """Every host finishes when the registry dies with all pieces among the hosts."""
    with network(image, tmp_path, hosts=6, mbit=40) as net:
        pulls = [net.pull(host, *SEEDING) for host in net.others]
        until(lambda: net.registry_host.tx_bytes() > image.size, pulls)
        until(lambda: copy_is_out(image, pulls), pulls)
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


def copy_is_out(image: Stored, pulls: list[Pulling]) -> bool:
    """Whether the hosts have all pieces of all layers among them."""
    return all(
        all(
            any(one)
            for one in zip(*(pull.pieces(image.metainfo, file) for pull in pulls), strict=True)
        )
        for file in image.layers
    )
