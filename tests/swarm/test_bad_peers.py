"""Peers that give nothing, or bytes that aren't the torrent's: little time lost, nothing taken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from docket.pieces import PIECE_LENGTH
from tests.support.namespaces import Host
from tests.swarm.network import SEEDING, Network, Stored, fetch_seconds, holds_the_image, network

LOST_SECONDS = 2.0
DEAD = 50  # as many as the tracker hands out in one answer
DEAD_FROM, DEAD_NET = "10.77.0.192", "10.77.0.192/26"


@contextmanager
def hostile(
    net: Network, host: Host, kind: str, address: str, count: int
) -> Iterator[subprocess.Popen[str]]:
    """*count* peers of *kind* on *host*, entered when they have announced themselves."""
    argv = [sys.executable, "-m", "tests.swarm.hostile", kind, str(net.torrent()), address]
    program: subprocess.Popen[str] = host.popen(
        [*argv, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with program:
        try:
            assert program.stdout
            assert program.stdout.readline() == "ready\n"
            yield program
        finally:
            program.kill()


@contextmanager
def dead(net: Network, host: Host) -> Iterator[None]:
    """Addresses that announced themselves and answer nothing any more."""
    route = (DEAD_NET, "dev", "lo")
    subprocess.run(["ip", "-n", host.name, "route", "add", "local", *route], check=True)
    with hostile(net, host, "dead", DEAD_FROM, DEAD) as program:
        assert program.wait() == 0
    subprocess.run(["ip", "-n", host.name, "route", "del", "local", *route], check=True)
    yield


@pytest.mark.parametrize("kind", ["silent", "stalling", "dead"])
def test_peers_that_give_nothing(image: Stored, tmp_path: Path, kind: str) -> None:
    """A pull loses at most two seconds to peers that don't answer, whatever way they don't."""
    with network(image, tmp_path, hosts=3, mbit=80) as net:
        first, second, bad = net.others
        calm = net.pull(first).report()
        with dead(net, bad) if kind == "dead" else hostile(net, bad, kind, bad.address, 5):
            report = net.pull(second).report()
    assert report["payload"]["http"] == 0
    assert fetch_seconds([report]) <= fetch_seconds([calm]) + LOST_SECONDS


def test_peers_that_give_other_bytes(image: Stored, tmp_path: Path) -> None:
    """They are banned after a few pieces, and every host ends with the image's bytes alone."""
    with network(image, tmp_path, hosts=5, mbit=80) as net:
        *hosts, bad = net.others
        with hostile(net, bad, "corrupt", bad.address, 3) as program:
            pulls = [net.pull(host, *SEEDING) for host in hosts]
            for pull in pulls:
                pull.report()
            output, _ = program.communicate()
        assert all(holds_the_image(pull, image) for pull in pulls)
    a_few = 4 * PIECE_LENGTH * len(hosts)
    assert all(0 < int(count) <= a_few for count in output.split())
