"""Other people's clients and docket's hosts in one swarm: all finish, and each gives to others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest

from tests.support.bittorrent import CLIENTS, download
from tests.support.namespaces import Host
from tests.support.trackers import opentracker
from tests.swarm.network import SEEDING, Network, Stored, holds_the_image, network

SLOW = 2_000_000  # bytes a second of the registry's seed: so that peers need each other
TRACKER_PORT = 6969


def embedded(_others: Sequence[Host]) -> list[str]:
    """The registry's options with its own tracker."""
    return ["--max-upload", str(SLOW)]


def outside(others: Sequence[Host]) -> list[str]:
    """The registry's options with a tracker on the last host."""
    return [*embedded(others), "-t", f"{others[-1].address}:{TRACKER_PORT}"]


@contextmanager
def tracker_of(net: Network) -> Iterator[None]:
    """opentracker on the last host."""
    host = net.others[-1]
    allowed = [net.stored.metainfo.info_hash.hex()]
    with opentracker(address=host.address, port=TRACKER_PORT, allowed=allowed, wrapper=host.enter):
        yield


@pytest.mark.parametrize(
    ("options", "tracker"),
    [(embedded, lambda _: nullcontext()), (outside, tracker_of)],
    ids=["embedded tracker", "opentracker"],
)
def test_mixed_swarm(
    image: Stored,
    tmp_path: Path,
    options: Callable[[Sequence[Host]], Sequence[str]],
    tracker: Callable[[Network], AbstractContextManager[None]],
) -> None:
    """Five foreign clients and a pull end with the image, and get much of it from each other."""
    with ExitStack() as stack:
        net = stack.enter_context(network(image, tmp_path, hosts=len(CLIENTS) + 3, options=options))
        stack.enter_context(tracker(net))
        *foreign_clients, first, second, _ = net.others
        torrent = net.torrent()
        downloads = [
            stack.enter_context(download(client, host, torrent, tmp_path / client.command))
            for client, host in zip(CLIENTS, foreign_clients, strict=True)
        ]
        pull = net.pull(first, *SEEDING, "--count-sources")
        report = pull.report()
        for going in downloads:
            going.finish(image.metainfo)
        assert report["payload"]["http"] == 0
        # there was no other host of docket's to give anything
        assert sum(layer["from"]["hosts"] for layer in report["layers"]) > image.size // 10
        assert first.tx_bytes() > image.size // 10
        assert sum(host.tx_bytes() for host in foreign_clients) > image.size
        later = net.pull(second).report()
        assert later["payload"]["http"] == 0
        assert all(holds_the_image(pull, image) for pull in net.pulls)
