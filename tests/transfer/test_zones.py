"""Zones on a real network: what crosses into them, and what happens when nothing does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import urlopen

from docket.torrent.tracker.peer_selection import OTHER_ZONE
from tests.support.commands import Commands, registry
from tests.support.images import release
from tests.support.namespaces import Host, namespaces
from tests.support.processes import short_folder

Named = Callable[[str], Commands]

IMAGE = release("app:1.0", [("zone-base", 24_000_000), ("zone-app", 8_000_000)])
SMALL = release("small:1.0", [("zone-small", 500_000)])
HOSTS = 4
PATIENCE = 6.0
MBIT = 60.0


@dataclass(frozen=True, slots=True)
class Zone:
    """Hosts that others reach through *gateway* alone, which counts what comes in."""

    label: str
    gateway: Host
    hosts: list[Host]


@contextmanager
def network() -> Iterator[tuple[Host, list[Zone]]]:
    """A registry's host, and two zones."""
    with namespaces(3 + 2 * HOSTS, mbit=MBIT) as (server, *others):
        zones = [
            Zone(label, others[number], others[2 + number * HOSTS :][:HOSTS])
            for number, label in enumerate(("left", "right"))
        ]
        for zone in zones:
            _forward(zone.gateway)
            outside = [
                server,
                *(host for other_zone in zones if other_zone != zone for host in other_zone.hosts),
            ]
            for host in outside:
                _through(host, zone.gateway, zone.hosts)
        yield server, zones


def _forward(gateway: Host) -> None:
    # without redirects, which would show the straight way
    settings = ("ip_forward=1", "conf.all.send_redirects=0", "conf.eth0.send_redirects=0")
    argv = ["sysctl", "-qw", *(f"net.ipv4.{setting}" for setting in settings)]
    gateway.run(argv, check=True)


def _through(host: Host, gateway: Host, targets: Sequence[Host]) -> None:
    for target in targets:
        argv = ["ip", "route", "add", f"{target.address}/32", "via", gateway.address]
        host.run(argv, check=True)


def test_about_one_copy_of_an_image_comes_into_a_zone() -> None:
    """Into each of two zones cross at most two image sizes, with all headers, however many pull."""
    with (
        short_folder() as root,
        network() as (server, zones),
        registry(root / "registry", bind="0.0.0.0", wrapper=server.enter) as bound,
    ):
        url = bound.replace("127.0.0.1", server.address)
        build = Commands(url, root / "build", server.enter)
        pushed = build("push", IMAGE.name, "--archive", IMAGE.archive(root / "image.tar"))
        before = [zone.gateway.rx_bytes() for zone in zones]

        def pull(zone: Zone, host: Host) -> dict[str, Any]:
            commands = Commands(url, root / host.name, host.enter)
            return commands("pull", IMAGE.name, "--layers-only", "--zone", zone.label)

        pulls = [(zone, host) for zone in zones for host in zone.hosts]
        with ThreadPoolExecutor(len(pulls)) as pool:
            reports = list(pool.map(lambda arguments: pull(*arguments), pulls))
        crossed = [zone.gateway.rx_bytes() - at for zone, at in zip(zones, before, strict=True)]
    size = pushed["uploaded"]
    assert len(reports) == 2 * HOSTS
    assert all(sum(report["payload"].values()) >= size for report in reports)
    # less than one copy would mean that not all of it was counted
    assert size < min(crossed)
    assert max(crossed) <= 2 * size, [round(sent / size, 2) for sent in crossed]


def test_a_host_whose_zone_sends_nothing_gets_outside_peers(host: Named, tmp_path: Path) -> None:
    """Where a zone's gateways send nothing, a fetch announces again, and the registry's seed
    gives.

    The gateways are peers that have announced, and at whose port nobody answers.
    """
    host("build")("push", SMALL.name, "--archive", SMALL.archive(tmp_path / "image.tar"))
    inspected = host("build")("inspect", SMALL.name)
    for port in range(1, 1 + OTHER_ZONE.first):
        query = {"info_hash": bytes.fromhex(inspected["info_hash"]), "peer_id": f"{port:020}"}
        query |= {"port": str(port), "left": "1", "event": "started"}
        # a plus stands for itself here
        url = f"{inspected['tracker']}/silent?{urlencode(query, quote_via=quote)}"
        with urlopen(url, timeout=20) as answer:
            assert b"8:completei1e" in answer.read()
    pulled = host("a")(
        "pull", SMALL.name, "--layers-only", "--zone", "silent", "--peer-timeout", PATIENCE
    )
    assert {layer["source"] for layer in pulled["layers"]} == {"swarm"}
    # the first response was no help: it announced again after half of --peer-timeout
    assert pulled["seconds"]["fetch"] > PATIENCE / 2
