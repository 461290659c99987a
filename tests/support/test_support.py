"""The engines, networks and trackers that other tests stand on really work."""

from __future__ import annotations

import io
import signal
import sys
import tarfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from tests.support import requirements
from tests.support.debian import PartMissing, StepFailed
from tests.support.engines import docker_registry, dockerd, podman_service
from tests.support.image_family.build import build
from tests.support.image_family.layers import Tree
from tests.support.namespaces import Host, namespaces
from tests.support.newer_docker import newer_dockerd
from tests.support.processes import short_folder
from tests.support.requirements import need, need_root
from tests.support.trackers import opentracker

_HASH = "ab" * 20
_LISTEN = """
import socket, sys
server = socket.create_server((sys.argv[1], 7000))
print("listening", flush=True)
connection, _ = server.accept()
print(sum(map(len, iter(lambda: connection.recv(65536), b""))))
"""
_SEND = """
import socket, sys
socket.create_connection((sys.argv[1], 7000)).sendall(bytes(int(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def image() -> Path:
    """The smallest image of the family."""
    need("mmdebstrap", "npm")
    need_root()
    try:
        return build(requirements.cache() / "small", small=True, only=["app-node:1.0"])[
            "app-node:1.0"
        ]
    except (PartMissing, StepFailed) as error:
        requirements.missing(f"a small image ({error})")


def test_dockerd_loads_and_runs_a_built_image(image: Path) -> None:
    """An image of the family loads under its name, and runs."""
    with short_folder() as root, dockerd(root) as engine:
        assert engine.load(image) == ["app-node:1.0"]
        said = engine.client.containers.run("app-node:1.0", network_mode="none", remove=True)
    assert said == b"app-node:1.0 runs marked 14.1.2\n"


def test_dockerd_started_again_still_has_its_images(image: Path) -> None:
    """The folder given to dockerd keeps the images when it ends."""
    with short_folder() as root:
        with dockerd(root) as engine:
            engine.load(image)
        with dockerd(root) as engine:
            assert engine.client.images.get("app-node:1.0").tags == ["app-node:1.0"]


def test_two_dockerds_at_once_know_nothing_of_each_other(image: Path) -> None:
    """Each engine has its own images."""
    with (
        short_folder() as first_folder,
        short_folder() as two,
        dockerd(first_folder) as first,
        dockerd(two) as second,
    ):
        first.load(image)
        assert second.client.images.list() == []


def test_podman_loads_a_built_image(image: Path) -> None:
    """Podman's service loads an image of the family by Docker's API."""
    with short_folder() as root, podman_service(root) as engine:
        assert engine.load(image) == ["localhost/app-node:1.0"]


@pytest.mark.parametrize("containerd_store", [False, True])
def test_newer_docker_loads_and_runs_a_built_image(image: Path, *, containerd_store: bool) -> None:
    """A newer Docker does so too, with either store."""
    with (
        short_folder() as root,
        newer_dockerd(root, containerd_store=containerd_store) as engine,
    ):
        assert int(engine.client.version()["Version"].split(".")[0]) >= 26
        status = dict(engine.client.info()["DriverStatus"] or [])
        in_containerd = status.get("driver-type") == "io.containerd.snapshotter.v1"
        assert in_containerd is containerd_store
        assert engine.load(image) == ["app-node:1.0"]
        said = engine.client.containers.run("app-node:1.0", network_mode="none", remove=True)
    assert said == b"app-node:1.0 runs marked 14.1.2\n"


def test_dockerd_pushes_to_the_registry(image: Path) -> None:
    """The reference registry takes an image from dockerd and lists it."""
    with (
        short_folder() as root,
        docker_registry(root / "registry") as registry,
        dockerd(root / "engine") as engine,
    ):
        engine.load(image)
        engine.client.images.get("app-node:1.0").tag(f"{registry.address}/app-node", "1.0")
        engine.client.images.push(f"{registry.address}/app-node", "1.0")
        with urllib.request.urlopen(f"{registry.url}/v2/_catalog") as reply:
            assert reply.read().strip() == b'{"repositories":["app-node"]}'


def test_hosts_reach_each_other_and_count_bytes() -> None:
    """What one host sends the other, both counters show."""
    size = 1_000_000
    with namespaces(2) as (left, two):
        with two.popen([sys.executable, "-c", _LISTEN, two.address], stdout=PIPE) as listener:
            assert listener.stdout.readline() == b"listening\n"
            sent, received = left.tx_bytes(), two.rx_bytes()
            left.run([sys.executable, "-c", _SEND, two.address, str(size)], check=True)
            assert int(listener.stdout.readline()) == size
        assert size < two.rx_bytes() - received < 1.2 * size
        assert size < left.tx_bytes() - sent < 1.2 * size


def test_shaped_hosts_are_as_slow_as_asked() -> None:
    """A link of 40 Mb/s takes at least 0.15 s for 1 MB, also with a bucket full of credit."""
    with namespaces(2, mbit=40) as (left, two):
        with two.popen([sys.executable, "-c", _LISTEN, two.address], stdout=PIPE) as listener:
            assert listener.stdout.readline() == b"listening\n"
            begin = time.monotonic()
            left.run([sys.executable, "-c", _SEND, two.address, "1000000"], check=True)
            assert int(listener.stdout.readline()) == 1_000_000
        assert time.monotonic() - begin > 0.15


def test_hosts_are_gone_when_a_test_fails() -> None:
    """Namespaces and what runs in them go, whatever happens."""
    left: list[tuple[Host, Popen[bytes]]] = []

    def fail() -> None:
        with namespaces(1) as (host,):
            left.append((host, host.popen(["cat"], stdin=PIPE)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    ((host, program),) = left
    with program:
        assert program.wait(10) == -signal.SIGKILL
    assert not Path("/run/netns", host.name).exists()


def test_dockerd_runs_inside_a_network_namespace() -> None:
    """An engine on a host of its own is reached by its socket as ever."""
    with (
        namespaces(1) as (host,),
        short_folder() as root,
        dockerd(root, wrapper=host.enter) as engine,
    ):
        assert engine.client.ping()


def _is_served(announce: str, info_hash: str) -> bool:
    """Soon: it answers before it has read its whitelist, which it does on a thread."""
    return any(b"5:peers" in _announce(announce, info_hash) for _ in range(500))


def test_opentracker_answers_only_for_its_whitelist() -> None:
    """A swarm is served once it is allowed."""
    with opentracker(allowed=[_HASH]) as tracker:
        assert _is_served(tracker.announce, _HASH)
        assert b"failure reason" in _announce(tracker.announce, "cd" * 20)
        tracker.allow("cd" * 20)
        assert _is_served(tracker.announce, "cd" * 20)


def test_opentracker_runs_on_a_host_of_its_own() -> None:
    """In a namespace it has that host's address."""
    with (
        namespaces(2) as (left, two),
        opentracker(address=left.address, port=6969, wrapper=left.enter) as tracker,
    ):
        probe = ["bash", "-c", f": < /dev/tcp/{tracker.address}/{tracker.port}"]
        two.run(probe, check=True)


def test_a_layer_of_changes_names_what_is_new_other_and_gone(tmp_path: Path) -> None:
    """Between two trees lie whole new files, their folders and whiteouts; not what is equal."""
    below = _tree(tmp_path / "below.tar", {"a/same": b"1", "a/other": b"1", "b/gone": b"1"})
    above = _tree(tmp_path / "above.tar", {"a/same": b"1", "a/other": b"2", "b/new": b"1"})
    with Tree(below, papers=True) as old, Tree(above, papers=True) as new:
        changes = {entry.name: content for entry, content in new.changes(old)}
    assert changes == {"a": b"", "a/other": b"2", "b": b"", "b/.wh.gone": b"", "b/new": b"1"}


def test_a_missing_part_skips_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a laptop it is a skip with its reason; where all must run it is a failure."""
    monkeypatch.setenv("DOCKET_REQUIRE_PARTS", "0")
    with pytest.raises(pytest.skip.Exception, match="part missing: no-such-thing"):
        need("no-such-thing")
    monkeypatch.setenv("DOCKET_REQUIRE_PARTS", "1")
    with pytest.raises(pytest.fail.Exception, match="part missing: no-such-thing"):
        need("no-such-thing")


def _announce(url: str, info_hash: str) -> bytes:
    raw = urllib.parse.quote(bytes.fromhex(info_hash))
    query = f"info_hash={raw}&peer_id={'b' * 20}&port=5000&uploaded=0&downloaded=0&left=1&compact=1"
    with urllib.request.urlopen(f"{url}?{query}", timeout=10) as reply:
        answer: bytes = reply.read()
        return answer


def _tree(target: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(target, "w") as tar:
        for folder in sorted({name.partition("/")[0] for name in files}):
            entry = tarfile.TarInfo(f"./{folder}/")
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return target
