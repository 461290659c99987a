"""How a host gets an image's torrent: built from piece hashes, or whole from the registry."""

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
from docket.torrent.tracker.hash_peers import RECIPIENTS
from docket.torrent.tracker.peer_selection import REGISTRY_ZONE
from docket.transfer.metainfo import MetainfoSource
from docket.transfer.options import TransferOptions
from docket.transfer.plan import fetch_request, plan_layers
from docket.transfer.pull import PullRequest, Target, pull
from docket.transfer.resolve import resolve
from tests.store.samples import open_store
from tests.support.commands import Commands
from tests.support.images import TinyImage, release

Host = Callable[[str], Commands]

SMALL = release("app:1.0", [("one", 400_000), ("two", 300_000), ("three", 200_000)])
NEXT = release("app:1.1", [("one", 400_000), ("two", 300_000), ("new", 250_000)])
LARGE = release("large:1.0", [("four", 60_000_000), ("five", 300_000)])


def pushed(host: Commands, image: TinyImage, folder: Path) -> None:
    """Push *image* from an archive."""
    archive = image.archive(folder / f"{Digest.of(image.name.encode()).short}.tar")
    host("push", image.name, "--archive", archive)


class Requests(Client):
    """A client that counts whole torrents, and changes what the registry sends of pieces."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.torrents = 0
        self.failed_peer: list[str] = []
        self.change: Callable[[RemotePieces], RemotePieces] = lambda pieces: pieces
        self._sent: list[RemotePieces] = []

    def watch(self) -> list[RemotePieces]:
        """What the registry sends of pieces from now on."""
        self._sent = []
        return self._sent

    def torrent(self, *arguments: Any, **more: Any) -> tuple[bytes, bool]:
        self.torrents += 1
        return super().torrent(*arguments, **more)

    def pieces(self, *arguments: Any, **more: Any) -> RemotePieces:
        if failed := more.get("failed_peer"):
            self.failed_peer.append(failed)
        pieces = self.change(super().pieces(*arguments, **more))
        self._sent.append(pieces)
        return pieces


def _old_registry(_pieces: RemotePieces) -> RemotePieces:
    raise NotFound


_ODD_RESPONSES: list[Callable[[RemotePieces], RemotePieces]] = [
    lambda pieces: replace(pieces, info_hash=bytes(20)),
    lambda pieces: replace(pieces, hashes=bytes(len(pieces.hashes))),
    lambda pieces: replace(pieces, hashes=pieces.hashes[:-1]),
    lambda pieces: replace(pieces, hashes=pieces.hashes + bytes(20)),
    lambda pieces: replace(pieces, piece_length=2 * pieces.piece_length),
    lambda pieces: replace(pieces, piece_length=0),
    lambda pieces: replace(pieces, announce="no URL"),
    _old_registry,
]


def _updated(folder: Path, client: Requests) -> list[str]:
    """Pull a release over the one before it; where its layers came from."""
    for image in (SMALL, NEXT):
        request = PullRequest(Reference.parse(image.name), Platform.of_host(), Target.STORE)
        report = pull(client, lambda: open_store(folder), request, progress=Silent())
        with open_store(folder) as store:
            assert store.maintenance.fsck(sample=Sample()).findings == []
    return sorted(layer.source for layer in report.layers)


def test_of_a_release_only_new_piece_hashes_are_requested(
    host: Host, registry_url: str, tmp_path: Path
) -> None:
    """Decision 27: with those of the layers that it holds a host makes the same torrent."""
    for image in (SMALL, NEXT):
        pushed(host("build"), image, tmp_path)
    client = Requests(registry_url)
    sent = client.watch()
    with client:
        assert _updated(tmp_path / "a", client) == ["held", "held", "swarm"]
    assert client.torrents == 0
    # half of a layer can be compressed
    assert [len(pieces.hashes) // HASH_SIZE for pieces in sent] == [4 + 3 + 2, 2]


@pytest.mark.parametrize("change", _ODD_RESPONSES)
def test_odd_piece_hashes_are_not_used(
    host: Host,
    registry_url: str,
    tmp_path: Path,
    change: Callable[[RemotePieces], RemotePieces],
) -> None:
    """Hashes that don't give the info-hash, or a registry without them: the torrent is fetched."""
    for image in (SMALL, NEXT):
        pushed(host("build"), image, tmp_path)
    client = Requests(registry_url)
    client.change = change
    with client:
        assert _updated(tmp_path / "a", client) == ["held", "held", "swarm"]
        assert client.torrents == 2


# -- hosts that serve piece hashes to each other


@contextmanager
def metainfo_source(
    client: Client, folder: Path, image: TinyImage, *, zone: str = ""
) -> Iterator[MetainfoSource]:
    """The source of a host with an empty store at *place*, which joins the swarm."""
    resolved = resolve(client, Reference.parse(image.name), Platform.of_host())
    with open_store(folder) as store:
        for content in (resolved.config, resolved.manifest.content):
            store.blobs.put(content)
        plans = plan_layers(resolved, store, engine=None)
        wanted = fetch_request(client, resolved, store, plans)
        options = TransferOptions(zone=zone)
        with closing(MetainfoSource(client, store, wanted, options)) as source:
            yield source


def _whole(client: Client, image: TinyImage) -> Metainfo:
    return parse_metainfo(Client.torrent(client, Reference.parse(image.name))[0])


def _take_the_gateways(client: Client, image: TinyImage) -> None:
    for _ in range(REGISTRY_ZONE.first):
        assert Client.torrent(client, Reference.parse(image.name), is_peer=True)[1]


@pytest.fixture
def client(host: Host, registry_url: str, tmp_path: Path) -> Iterator[Requests]:
    """A client of a registry that has `LARGE`, whose places for gateways are taken."""
    pushed(host("build"), LARGE, tmp_path)
    client = Requests(registry_url)
    with client:
        _take_the_gateways(client, LARGE)
        yield client


def test_a_host_gets_hashes_from_one_that_has_them(client: Requests, tmp_path: Path) -> None:
    """Decision 28: the registry sends them to the first host, which serves others."""
    sent = client.watch()
    with metainfo_source(client, tmp_path / "a", LARGE) as first:
        content = [first.metainfo().content]
        for number in range(RECIPIENTS):
            with metainfo_source(client, tmp_path / f"b{number}", LARGE) as second_host:
                content.append(second_host.metainfo().content)
                assert not second_host.is_gateway
    assert [bool(pieces.hash_peer) for pieces in sent] == [False] + [True] * RECIPIENTS
    assert [bool(pieces.hashes) for pieces in sent] == [True] + [False] * RECIPIENTS
    assert {parse_metainfo(torrent).info_hash for torrent in content} == {
        _whole(client, LARGE).info_hash
    }
    assert client.torrents == 0


def test_a_host_waits_for_one_that_is_getting_them(client: Requests, tmp_path: Path) -> None:
    """Many hosts at one moment: the host that serves the hashes may not have them yet."""
    with ThreadPoolExecutor(8) as pool, ExitStack() as stack:
        hosts = [
            stack.enter_context(metainfo_source(client, tmp_path / str(number), LARGE))
            for number in range(8)
        ]
        torrents = list(pool.map(lambda source: source.metainfo().info_hash, hosts))
    assert set(torrents) == {_whole(client, LARGE).info_hash}
    assert client.torrents == 0


def test_gateways_get_hashes_from_the_registry(client: Requests, tmp_path: Path) -> None:
    """In a zone with room for gateways, whatever hosts serve hashes there."""
    sent = client.watch()
    for number in range(2):
        folder = tmp_path / str(number)
        with metainfo_source(client, folder, LARGE, zone="far") as source:
            source.metainfo()
            assert source.is_gateway
    assert [bool(pieces.hash_peer) for pieces in sent] == [False, False]


def test_few_hashes_come_from_the_registry(client: Requests, host: Host, tmp_path: Path) -> None:
    """A few hashes arrive sooner than another host could be connected."""
    pushed(host("build"), SMALL, tmp_path)
    _take_the_gateways(client, SMALL)
    sent = client.watch()
    for number in range(2):
        with metainfo_source(client, tmp_path / str(number), SMALL) as source:
            source.metainfo()
    assert [bool(pieces.hash_peer) for pieces in sent] == [False, False]


@contextmanager
def _gone(_client: Client) -> Iterator[str]:
    server = HashServer()
    server.close()
    yield f"127.0.0.1:{server.port}"


@contextmanager
def _nowhere(_client: Client) -> Iterator[str]:
    yield "x:y"


@contextmanager
def _liar(client: Client) -> Iterator[str]:
    """A host that serves as many hashes as are requested, and none of them true."""
    torrent = _whole(client, LARGE)
    with closing(HashServer()) as server:
        wrong = {
            file.digest: bytes(len(torrent.hashes(file))) for file in torrent.files if file.digest
        }
        server.publish(torrent.info_hash, wrong)
        yield f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("serving", [_gone, _nowhere, _liar])
def test_a_host_that_serves_no_true_hashes_is_dropped(
    client: Requests, tmp_path: Path, serving: Callable[[Client], AbstractContextManager[str]]
) -> None:
    """The registry sends them instead, and names that host to nobody any more."""
    with (
        serving(client) as address,
        metainfo_source(client, tmp_path / "a", LARGE) as first,
        metainfo_source(client, tmp_path / "b", LARGE) as second_host,
    ):
        client.change = lambda pieces: (
            replace(pieces, hash_peer=address) if not pieces.hashes else pieces
        )
        sent = client.watch()
        assert first.metainfo().info_hash == second_host.metainfo().info_hash
    assert [pieces.hash_peer for pieces in sent] == ["", address, ""]
    assert client.failed_peer == [address]
    assert client.torrents == 0
