"""Piece hashes: what the registry tells of them, and whom it has told by others."""

from __future__ import annotations

import pytest

from docket.oci.digest import Digest
from docket.torrent.metainfo import parse_metainfo
from docket.torrent.tracker.peer_selection import REGISTRY_ZONE
from tests.api.http import Registry, Repository
from tests.store.samples import image

ONE, TWO = image("base", "one", size=300_000), image("base", "two", size=300_000)


def test_piece_hashes_of_some_blobs(repo: Repository) -> None:
    """Decision 27: those of the torrent, in the order of the question, and which torrent it is."""
    repo.push(ONE, "v1")
    torrent = parse_metainfo(repo.ask("GET", "_docket/torrent/v1", zone="a").body)
    hashes = {file.digest: torrent.hashes(file) for file in torrent.files}
    last, first = (Digest.of(ONE.blobs[number]) for number in (-1, 0))
    answer = repo.ask("GET", "_docket/pieces/v1", digests=f"{last},{first}", zone="a")
    assert answer.status == 200
    assert answer.body == hashes[last] + hashes[first]
    assert answer.headers["Docker-Content-Digest"] == str(ONE.digest)
    assert answer.headers["Docket-Info-Hash"] == torrent.info_hash.hex()
    assert answer.headers["Docket-Piece-Length"] == str(torrent.piece_length)
    assert answer.headers["Docket-Announce"] == "/announce/a"
    assert repo.ask("GET", "_docket/pieces/v1").body == b""


def test_piece_hashes_that_are_not_there(repo: Repository) -> None:
    """Of an unknown image, of a blob of another one, and of what is no digest."""
    repo.push(ONE, "v1")
    new_blob = next(blob for blob in TWO.blobs if blob not in ONE.blobs)
    query = {"digests": str(Digest.of(new_blob))}
    assert repo.ask("GET", "_docket/pieces/v9", **query).refused(404, "MANIFEST_UNKNOWN")
    assert repo.ask("GET", "_docket/pieces/v1", **query).refused(404, "BLOB_UNKNOWN")
    assert repo.ask("GET", "_docket/pieces/v1", digests="x").refused(400, "DIGEST_INVALID")


def named_by(repo: Repository, port: object, method: str = "GET", **query: str) -> str:
    """Who is to tell the piece hashes to a host that asks so; empty: the registry has."""
    layer = Digest.of(ONE.blobs[-1])
    answer = repo.ask(method, "_docket/pieces/v1", digests=str(layer), port=port, **query)
    assert answer.status == 200
    hash_peer = answer.headers.get("Docket-Hash-Peer", "")
    if method == "GET":
        assert bool(answer.body) != bool(hash_peer)
    return hash_peer


def test_hosts_tell_others_of_their_zone(sweeping: Registry) -> None:
    """Decision 28: the registry tells the first, and whoever was told nothing by another."""
    repo = sweeping.repository("app")
    repo.push(ONE, "v1")
    assert named_by(repo, 4001) == ""
    assert named_by(repo, 4002) == "127.0.0.1:4001"
    assert named_by(repo, 4003, zone="far") == ""
    assert named_by(repo, 4004, zone="far") == "127.0.0.1:4003"
    assert named_by(repo, "", failed_peer="127.0.0.1:4001") == ""
    assert named_by(repo, 4005) == ""


@pytest.mark.parametrize("port", ["", "0", "65536", "123456", "http", "-1", "1.5"])
def test_who_has_no_port_tells_nobody(sweeping: Registry, port: str) -> None:
    """Who asks with HEAD, or with what is no port, is told by the registry, and named to nobody."""
    repo = sweeping.repository("app")
    repo.push(ONE, "v1")
    assert named_by(repo, port) == ""
    assert named_by(repo, 4001, "HEAD") == ""
    assert named_by(repo, 4002) == ""
    assert named_by(repo, port) == ""


def test_gates_are_told_by_the_registry(sweeping: Registry) -> None:
    """Decision 28: as long as there is room for gateways."""
    repo = sweeping.repository("app")
    repo.push(ONE, "v1")
    hash_peers = [
        named_by(repo, 4000 + number, join_token=f"host{number}")
        for number in range(REGISTRY_ZONE.first + 1)
    ]
    assert hash_peers == [""] * REGISTRY_ZONE.first + ["127.0.0.1:4000"]


def test_a_bad_question_takes_no_place_of_a_gate(sweeping: Registry) -> None:
    """Nothing is begun for a host that asks for what isn't there."""
    repo = sweeping.repository("app")
    repo.push(ONE, "v1")
    new_blob = str(Digest.of(next(blob for blob in TWO.blobs if blob not in ONE.blobs)))
    for number in range(REGISTRY_ZONE.first):
        query = {"digests": new_blob, "join_token": f"lost{number}", "port": 4001}
        assert repo.ask("GET", "_docket/pieces/v1", **query).refused(404, "BLOB_UNKNOWN")
    hash_peers = [
        named_by(repo, 5000 + number, join_token=f"host{number}")
        for number in range(REGISTRY_ZONE.first + 1)
    ]
    assert hash_peers == [""] * REGISTRY_ZONE.first + ["127.0.0.1:5000"]
