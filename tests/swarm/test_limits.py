"""Limits in bytes a second, counted where hosts' links are: on private addresses, headers too."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.commands import DOCKET
from tests.support.images import release
from tests.swarm.network import SEEDING, Stored, network, until

LIMIT = 1_500_000  # slow: what a busy machine makes up for is little of it
UP = ("--max-upload", str(LIMIT))
DOWN = ("--max-download", str(LIMIT))
OTHER = release("other:1.0", [("other", 40_000_000)])


def test_download_limit_of_a_pull(image: Stored, tmp_path: Path) -> None:
    """What comes to the host keeps to its limit, from the swarm and over HTTP."""
    with network(image, tmp_path, hosts=2) as net:
        first, second = net.others
        pull = net.pull(first, *DOWN)
        assert_limited(first.rx_bytes, image.size)
        pull.report()
        pull = net.pull(second, *DOWN, "--no-swarm")
        assert_limited(second.rx_bytes, largest(image))
        pull.report()


def test_upload_limits_of_a_registry_and_a_pull(image: Stored, tmp_path: Path) -> None:
    """The registry's seed gives its limit, and a host that seeds gives its own beside it."""
    with network(image, tmp_path, hosts=2, options=lambda _: UP) as net:
        first, second = net.others
        pull = net.pull(first, *UP, *SEEDING)
        assert_limited(net.registry_host.tx_bytes, image.size)
        pull.report()
        pull = net.pull(second)
        assert_limited(first.tx_bytes, image.size // 2)
        pull.report()


def test_limits_of_a_registry_over_http(image: Stored, tmp_path: Path) -> None:
    """Blobs that are pushed keep to the registry's download limit, pulled ones to its upload."""
    with network(image, tmp_path, hosts=2, options=lambda _: (*UP, *DOWN)) as net:
        first, second = net.others
        archive = OTHER.archive(tmp_path / "archive")
        argv = [*DOCKET, "-h", net.registry.url, "--json", "push", OTHER.name, "--archive"]
        with first.popen([*argv, str(archive)], stdout=subprocess.DEVNULL) as push:
            assert_limited(net.registry_host.rx_bytes, image.size)
        assert push.returncode == 0
        pull = net.pull(second, "--no-swarm")
        assert_limited(net.registry_host.tx_bytes, largest(image))
        pull.report()


def largest(image: Stored) -> int:
    """Bytes of the layer that comes first over HTTP; between layers hashing takes time."""
    return image.layers[-1].size


def assert_limited(counter: Callable[[], int], size: int) -> None:
    """*counter* goes on at 90 to 110 % of the limit, from a fifth of *size* bytes to four."""
    began = counter()
    until(lambda: counter() > began + size // 5)
    first, at = counter(), time.monotonic()
    until(lambda: counter() > began + 4 * size // 5)
    rate = (counter() - first) / (time.monotonic() - at)
    assert 0.9 * LIMIT <= rate <= 1.1 * LIMIT
