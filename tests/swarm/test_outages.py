"""Trackers and registries that are gone for a while or for good: every pull completes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support.namespaces import Host
from tests.support.trackers import opentracker
from tests.swarm.network import SEEDING, Stored, holds_the_image, network, until

TRACKER_PORT = 6969


def last_one_tracks(others: Sequence[Host]) -> list[str]:
    """The registry's option for a tracker on the last host."""
    return ["-t", f"{others[-1].address}:{TRACKER_PORT}"]


def test_tracker_gone(image: Stored, tmp_path: Path) -> None:
    """Peers that know each other go on without a tracker; who comes later gets all by HTTP."""
    with network(image, tmp_path, hosts=5, mbit=40, options=last_one_tracks) as net:
        *hosts, late, tracks = net.others
        with opentracker(
            address=tracks.address,
            port=TRACKER_PORT,
            allowed=[image.metainfo.info_hash.hex()],
            wrapper=tracks.enter,
        ):
            pulls = [net.pull(host, *SEEDING) for host in hosts]
            until(lambda: all(pull.stored() > image.size // 4 for pull in pulls), pulls)
        assert not any(pull.is_done() for pull in pulls)
        reports = [pull.report() for pull in pulls]
        assert all(report["payload"]["http"] == 0 for report in reports)
        last = net.pull(late, "--peer-timeout", "1").report()
        assert last["payload"] == {"swarm": 0, "http": sum(layer.size for layer in image.layers)}


def test_registry_restarted(image: Stored, tmp_path: Path) -> None:
    """Killed and started again in mid-swarm, it serves on: pulls by swarm and HTTP complete."""
    with network(image, tmp_path, hosts=5, mbit=40) as net:
        *hosts, web, late = net.others
        fetching = [net.pull(host, *SEEDING) for host in hosts]
        over_http = net.pull(web, "--no-swarm")
        pulls = [*fetching, over_http]

        def all_have_begun() -> bool:
            # that one has a small part of the registry's link, and the others are soon done
            return bool(over_http.stored()) and all(
                pull.stored() > image.size // 8 for pull in fetching
            )

        until(all_have_begun, pulls)
        net.registry.kill()
        assert not any(pull.is_done() for pull in pulls)
        net.registry.start()
        pulls.append(net.pull(late))
        for pull in pulls:
            pull.report()
        assert all(holds_the_image(pull, image) for pull in pulls)
