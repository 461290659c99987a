"""Peers that give nothing, or bytes that aren't the torrent's: little time lost, nothing taken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from docket.digest import Digest
from tests.support.netns import Host
from tests.swarm.network import Network, Stored, fetch_seconds, network

LOST_SECONDS = 2.0
DEAD = 50  # as many as the tracker hands out in one answer
DEAD_FROM, DEAD_NET = "10.77.0.192", "10.77.0.192/26"


@contextmanager
def hostile(
    net: Network, host: Host, kind: str, address: str, count: int
) -> Iterator[subprocess.Popen[str]]:
    """*count* peers of *kind* on *host*, entered when they have announced themselves."""
    torrent = net.place / "image.torrent"
    torrent.write_bytes(net.torrent())
    argv = [sys.executable, "-m", "tests.swarm.hostile", kind, torrent, address, str(count)]
    program = host.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with program:
        try:
            assert program.stdout.readline() == "ready\n"
            yield program
        finally:
            program.kill()


@pytest.mark.parametrize("kind", ["silent", "stalling", "dead"])
def test_peers_that_give_nothing(image: Stored, tmp_path: Path, kind: str) -> None:
    """A pull loses at most two seconds to peers that don't answer, whatever way they don't."""
    with network(image, tmp_path, hosts=3, mbit=80) as net:
        first, second, bad = net.others
        calm = net.pull(first).report()
        if kind == "dead":
            route = ["route", "add", "local", DEAD_NET, "dev", "lo"]
            subprocess.run(["ip", "-n", bad.name, *route], check=True)
            with hostile(net, bad, kind, DEAD_FROM, DEAD) as program:
                program.wait()
            route[1] = "del"
            subprocess.run(["ip", "-n", bad.name, *route], check=True)
            report = net.pull(second).report()
        else:
            with hostile(net, bad, kind, bad.address, 5):
                report = net.pull(second).report()
    print(kind, fetch_seconds([calm]), fetch_seconds([report]))
    assert report["payload"]["http"] == 0
    assert fetch_seconds([report]) <= fetch_seconds([calm]) + LOST_SECONDS


def test_peers_that_give_other_bytes(image: Stored, tmp_path: Path) -> None:
    """They are banned after a piece or few, and every host ends with the image's bytes."""
    with network(image, tmp_path, hosts=5, mbit=80) as net:
        *hosts, bad = net.others
        with hostile(net, bad, "corrupt", bad.address, 3) as program:
            pulls = [net.pull(host, "--seed", "600") for host in hosts]
            reports = [pull.report() for pull in pulls]
            print(program.communicate())
    print(fetch_seconds(reports), [r["payload"] for r in reports], image.size)
    for pull in pulls:
        held = {str(Digest.of_file(path)) for path in pull.held()}
        assert held == {f"sha256:{path.name}" for path in pull.held()}
        assert {layer["digest"] for layer in reports[0]["layers"]} <= held
