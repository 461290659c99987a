"""A host whose disk fills up in mid-swarm: its own affair."""

from __future__ import annotations

from pathlib import Path

from tests.support.disks import tiny_disk
from tests.swarm.network import SEEDING, Stored, holds_the_image, network


def test_full_disk_of_one_host(image: Stored, tmp_path: Path) -> None:
    """It says so in one line and ends with 7; the other hosts don't notice."""
    with tiny_disk(10) as disk, network(image, tmp_path, hosts=4, mbit=40) as net:
        full, *hosts = net.others
        pulls = [net.pull(host, *SEEDING) for host in hosts]
        code, said = net.pull(full, location=disk / "store").failure()
        reports = [pull.report() for pull in pulls]
        assert all(holds_the_image(pull, image) for pull in pulls)
    assert code == 7
    assert len(said.splitlines()) == 1
    assert said.startswith("docket: no space left on the disk")
    assert all(report["payload"]["http"] == 0 for report in reports)
