"""How a host gets an image's torrent: made of what it holds and hears, or from the registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from docket.errors import NotFound
from docket.oci.digest import Digest
from docket.oci.manifest import Platform
from docket.oci.reference import Reference
from docket.pieces import HASH_SIZE
from docket.progress import Silent
from docket.remote.client import Client
from docket.remote.values import RemotePieces
from docket.store import Sample
from docket.torrent.hash_exchange import HashServer
from docket.torrent.metainfo import Metainfo, parse_metainfo
from docket.torrent.peer.session_options import SessionOptions
from docket.torrent.peer.swarm import Swarm
from docket.torrent.tracker.hash_peers import RECIPIENTS
from docket.torrent.tracker.peer_selection import REGISTRY_ZONE
from docket.transfer.metainfo import MetainfoSource
from docket.transfer.pull import plan, pull, resolve, to_fetch
from tests.store.samples import open_store
from tests.support.commands import Commands
from tests.support.releases import Release, release

Host = Callable[[str], Commands]

SMALL = release("app:1.0", [("one", 400_000), ("two", 300_000), ("three", 200_000)])
NEXT = release("app:1.1", [("one", 400_000), ("two", 300_000), ("new", 250_000)])
LARGE = release("large:1.0", [("four", 60_000_000), ("five", 300_000)])


def pushed(host: Commands, image: Release, place: Path) -> None:
    """Push *image* from an archive."""
    archive = image.archive(place / f"{Digest.of(image.name.encode()).short}.tar")
    host("push", image.name, "--archive", archive)


class Asked(Client):
    """A client that counts whole torrents, and changes what it is told of pieces."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.torrents = 0
        self.failed_peer: list[str] = []
        self.change: Callable[[RemotePieces], RemotePieces] = lambda told: told
        self._told: list[RemotePieces] = []

    def watch(self) -> list[RemotePieces]:
        """What is told of pieces from now on."""
        self._told = []
        return self._told

    def torrent(self, *arguments: Any, **more: Any) -> tuple[bytes, bool]:
        self.torrents += 1
        return super().torrent(*arguments, **more)

    def pieces(self, *arguments: Any, **more: Any) -> RemotePieces:
        if silent := more.get("failed_peer"):
            self.failed_peer.append(silent)
        told = self.change(super().pieces(*arguments, **more))
        self._told.append(told)
        return told


def _old_registry(_told: RemotePieces) -> RemotePieces:
    raise NotFound


_ODD_ANSWERS: list[Callable[[RemotePieces], RemotePieces]] = [
    lambda told: replace(told, info_hash=bytes(20)),
    lambda told: replace(told, hashes=bytes(len(told.hashes))),
    lambda told: replace(told, hashes=told.hashes[:-1]),
    lambda told: replace(told, hashes=told.hashes + bytes(20)),
    lambda told: replace(told, piece_length=2 * told.piece_length),
    lambda told: replace(told, piece_length=0),
    lambda told: replace(told, announce="no URL"),
    _old_registry,
]


def _updated(place: Path, client: Asked) -> list[str]:
    """Pull a release over the one before it; where its layers came from."""
    with open_store(place) as store, Swarm(SessionOptions(listen="127.0.0.1:0")) as swarm:
        for image in (SMALL, NEXT):
            found = resolve(client, Reference.parse(image.name), Platform.of_host())
            report = pull(client, store, found, engine=None, swarm=lambda: swarm, progress=Silent())
            assert store.maintenance.fsck(sample=Sample()).findings == []
    return sorted(one.source for one in report.layers)


def test_of_a_release_only_new_piece_hashes_are_asked(
    host: Host, registry_url: str, tmp_path: Path
) -> None:
    """Decision 27: with those of the layers that it holds a host makes the same torrent."""
    for image in (SMALL, NEXT):
        pushed(host("build"), image, tmp_path)
    client = Asked(registry_url)
    told = client.watch()
    with client:
        assert _updated(tmp_path / "a", client) == ["held", "held", "swarm"]
    assert client.torrents == 0
    # half of a layer can be compressed
    assert [len(one.hashes) // HASH_SIZE for one in told] == [4 + 3 + 2, 2]


@pytest.mark.parametrize("change", _ODD_ANSWERS)
def test_odd_piece_hashes_are_not_used(
    host: Host,
    registry_url: str,
    tmp_path: Path,
    change: Callable[[RemotePieces], RemotePieces],
) -> None:
    """What doesn't give the torrent that was told, or isn't known: the torrent is asked for."""
    for image in (SMALL, NEXT):
        pushed(host("build"), image, tmp_path)
    client = Asked(registry_url)
    client.change = change
    with client:
        assert _updated(tmp_path / "a", client) == ["held", "held", "swarm"]
        assert client.torrents == 2


# -- hosts that tell each other


@contextmanager
def assembly(
    client: Client, place: Path, image: Release, *, zone: str = ""
) -> Iterator[MetainfoSource]:
    """That of a host with an empty store at *place*, which joins the swarm."""
    found = resolve(client, Reference.parse(image.name), Platform.of_host())
    with open_store(place) as store:
        asked = to_fetch(found, store, plan(found, store, engine=None))
        with closing(MetainfoSource(client, store, asked, zone=zone, joins=True)) as made:
            yield made


def _whole(client: Client, image: Release) -> Metainfo:
    return parse_metainfo(Client.torrent(client, Reference.parse(image.name))[0])


def _take_the_gates(client: Client, image: Release) -> None:
    for _ in range(REGISTRY_ZONE.first):
        assert Client.torrent(client, Reference.parse(image.name), is_peer=True)[1]


@pytest.fixture
def client(host: Host, registry_url: str, tmp_path: Path) -> Iterator[Asked]:
    """Of a registry that has `LARGE`, whose places for gateways are taken."""
    pushed(host("build"), LARGE, tmp_path)
    client = Asked(registry_url)
    with client:
        _take_the_gates(client, LARGE)
        yield client


def test_a_host_hears_from_one_that_was_told(client: Asked, tmp_path: Path) -> None:
    """Decision 28: the registry tells the first, which tells others; the torrent is the same."""
    told = client.watch()
    with assembly(client, tmp_path / "a", LARGE) as first:
        content = [first.metainfo().content]
        for number in range(RECIPIENTS):
            with assembly(client, tmp_path / f"b{number}", LARGE) as other:
                content.append(other.metainfo().content)
                assert not other.is_gateway
    assert [bool(one.hash_peer) for one in told] == [False] + [True] * RECIPIENTS
    assert [bool(one.hashes) for one in told] == [True] + [False] * RECIPIENTS
    assert {parse_metainfo(one).info_hash for one in content} == {_whole(client, LARGE).info_hash}
    assert client.torrents == 0


def test_a_host_is_told_to_wait_for_one_that_is_being_told(client: Asked, tmp_path: Path) -> None:
    """A crowd asks at one moment: who tells may not know yet."""
    with ThreadPoolExecutor(8) as pool, ExitStack() as stack:
        hosts = [
            stack.enter_context(assembly(client, tmp_path / str(number), LARGE))
            for number in range(8)
        ]
        torrents = list(pool.map(lambda one: one.metainfo().info_hash, hosts))
    assert set(torrents) == {_whole(client, LARGE).info_hash}
    assert client.torrents == 0


def test_gates_are_told_by_the_registry(client: Asked, tmp_path: Path) -> None:
    """In a zone with room for gateways, whoever tells there."""
    told = client.watch()
    for number in range(2):
        place = tmp_path / str(number)
        with assembly(client, place, LARGE, zone="far") as one:
            one.metainfo()
            assert one.is_gateway
    assert [bool(one.hash_peer) for one in told] == [False, False]


def test_a_small_torrent_is_told_by_the_registry(client: Asked, host: Host, tmp_path: Path) -> None:
    """A few hashes are sooner told than another host is asked."""
    pushed(host("build"), SMALL, tmp_path)
    _take_the_gates(client, SMALL)
    told = client.watch()
    for number in range(2):
        with assembly(client, tmp_path / str(number), SMALL) as one:
            one.metainfo()
    assert [bool(one.hash_peer) for one in told] == [False, False]


@contextmanager
def _gone(_client: Client) -> Iterator[str]:
    teller = HashServer()
    teller.close()
    yield f"127.0.0.1:{teller.port}"


@contextmanager
def _nowhere(_client: Client) -> Iterator[str]:
    yield "x:y"


@contextmanager
def _liar(client: Client) -> Iterator[str]:
    """A host that tells as many hashes as are asked for, and none of them true."""
    torrent = _whole(client, LARGE)
    with closing(HashServer()) as teller:
        wrong = {one.digest: bytes(len(torrent.hashes(one))) for one in torrent.files if one.digest}
        teller.publish(torrent.info_hash, wrong)
        yield f"127.0.0.1:{teller.port}"


@pytest.mark.parametrize("kind", [_gone, _nowhere, _liar])
def test_who_tells_nothing_true_is_not_asked_again(
    client: Asked, tmp_path: Path, kind: Callable[[Client], AbstractContextManager[str]]
) -> None:
    """The registry tells instead, and names that host to nobody any more."""
    with (
        kind(client) as teller,
        assembly(client, tmp_path / "a", LARGE) as first,
        assembly(client, tmp_path / "b", LARGE) as other,
    ):
        client.change = lambda told: replace(told, hash_peer=teller) if not told.hashes else told
        told = client.watch()
        assert first.metainfo().info_hash == other.metainfo().info_hash
    assert [one.hash_peer for one in told] == ["", teller, ""]
    assert client.failed_peer == [teller]
    assert client.torrents == 0
