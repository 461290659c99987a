"""The tracker over sockets: the short way of plain announces and the usual way say the same."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, urlsplit

import pytest
import urllib3

from docket.torrent.metainfo import parse_metainfo
from docket.torrent.tracker.peers import INTERVAL
from docket.torrent.zone import compact
from tests.api.conftest import running
from tests.api.http import Registry, Repository
from tests.store.samples import image
from tests.support.commands import registry as registry_at
from tests.support.requirements import missing
from tests.torrent.samples import decoded

_ANNOUNCES = 3


@pytest.fixture
def info_hash(repo: Repository) -> bytes:
    """Of an image of the test's own."""
    return info_hash_of(repo)


def info_hash_of(repo: Repository) -> bytes:
    """Push a new image; the info-hash of its torrent."""
    repo.push(image(uuid.uuid4().hex, size=100), "v1")
    return parse_metainfo(repo.ask("GET", "_docket/torrent/v1").body).info_hash


class Wire:
    """A connection to a registry, on which requests are bytes."""

    def __init__(self, registry: Registry) -> None:
        where = urlsplit(registry.url)
        assert where.hostname
        assert where.port
        self._socket = socket.create_connection((where.hostname, where.port), timeout=20)
        self._file = self._socket.makefile("rb")

    def close(self) -> None:
        """End the connection."""
        self._file.close()
        self._socket.close()

    def send(self, *parts: bytes) -> None:
        """Send the parts, each in a packet of its own."""
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            self._socket.sendall(part)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        status = int(self._file.readline().split()[1])
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.partition(b":")
            headers[name.decode().lower()] = value.strip().decode()
        return status, headers, self._file.read(int(headers["content-length"]))

    def is_at_end(self) -> bool:
        """Wait until the registry has closed its side."""
        return self._file.read() == b""


@pytest.fixture
def wire(registry: Registry) -> Iterator[Wire]:
    """A connection to the registry that tests share."""
    with closing(Wire(registry)) as opened:
        yield opened


def request(
    info_hash: bytes,
    *headers: str,
    path: str = "/announce",
    peer: str = "-XX0001-abcdefghijkl",
    port: int = 6881,
    version: str = "1.1",
    method: str = "GET",
    more: str = "",
) -> bytes:
    """An announce as bytes."""
    query = f"info_hash={quote_from_bytes(info_hash)}&peer_id={peer}&port={port}&left=1{more}"
    lines = [f"{method} {path}?{query} HTTP/{version}", "Host: registry", *headers, "", ""]
    return "\r\n".join(lines).encode()


def announced(wire: Wire, info_hash: bytes, port: int, *, path: str = "/announce") -> Any:
    """What a peer at *port* is answered, decoded."""
    wire.send(request(info_hash, path=path, peer=f"{port:020}", port=port))
    return decoded(wire.answer()[2])


def peer_ports(content: bytes) -> list[int]:
    """The ports of the IPv4 peers in an answer, sorted."""
    packed = decoded(content)[b"peers"]
    return sorted(int.from_bytes(packed[at + 4 : at + 6], "big") for at in range(0, len(packed), 6))


def test_announces_on_a_kept_connection(registry: Registry, wire: Wire, info_hash: bytes) -> None:
    """HTTP: the connection stays for more announces, and for whatever else a client asks."""
    with closing(Wire(registry)) as first:
        announced(first, info_hash, 6881)  # of a torrent that nobody has asked for yet
    for _ in range(_ANNOUNCES):
        wire.send(request(info_hash))
        status, headers, content = wire.answer()
        assert status == 200
        assert headers["content-type"] == "text/plain; charset=utf-8"
        assert decoded(content)[b"complete"] == 1
    assert "date" not in headers, "the application answered, not the short way"
    wire.send(b"GET /healthz HTTP/1.1\r\nHost: registry\r\n\r\n")
    assert wire.answer()[2] == b"ok\n"
    wire.send(request(info_hash))
    assert decoded(wire.answer()[2])[b"complete"] == 1


def test_a_client_that_closes_is_let_go(wire: Wire, info_hash: bytes) -> None:
    """HTTP: after Connection: close the registry ends the connection."""
    wire.send(request(info_hash))
    wire.answer()
    wire.send(request(info_hash, "Connection: close"))
    assert wire.answer()[1]["connection"] == "close"
    assert wire.is_at_end()


def test_an_idle_connection_is_ended(registry: Registry, wire: Wire, info_hash: bytes) -> None:
    """A kept connection on which nothing comes for some seconds doesn't stay."""
    with closing(Wire(registry)) as first:
        announced(first, info_hash, 6881)
    announced(wire, info_hash, 6881)
    assert wire.is_at_end()


def test_a_torrent_is_refused_soon_after_its_image_went(sweeping: Registry) -> None:
    """Known torrents only: peers that go on announcing are told before an interval is over."""
    repo = sweeping.repository("app")
    info_hash = info_hash_of(repo)
    with closing(Wire(sweeping)) as first, closing(Wire(sweeping)) as wire:
        announced(first, info_hash, 7001)
        assert b"peers" in announced(wire, info_hash, 7001)
        digest = repo.ask("HEAD", "manifests/v1").headers["Docker-Content-Digest"]
        repo.ask("DELETE", f"manifests/{digest}")
        sweeping.ask("POST", "/v2/_docket/gc", body=b'{"grace":0}')
        deadline = time.monotonic() + 3 * INTERVAL
        while b"failure reason" not in announced(wire, info_hash, 7001):
            assert time.monotonic() < deadline


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Accept-Encoding: gzip", "User-Agent: any/1.0"),
        ("Content-Length: 0",),
        ("X-Forwarded-Proto: http",),
        ("Upgrade: h2c",),
    ],
    ids=str,
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_every_form_of_an_announce_is_answered_alike(
    wire: Wire, info_hash: bytes, headers: tuple[str, ...], version: str
) -> None:
    """Short way or usual way, a peer hears the same, a second time too."""
    wire.send(request(info_hash, peer="-XX0001-other-peer-1", port=7001))
    seed = peer_ports(wire.answer()[2])
    assert len(seed) == 1
    answers = []
    for _ in range(2):
        wire.send(request(info_hash, *headers, "Connection: keep-alive", version=version))
        status, _, content = wire.answer()
        assert status == 200
        answers.append(peer_ports(content))
        if version == "1.0":
            break
    assert answers == [sorted([7001, *seed])] * len(answers)


def test_a_request_that_comes_in_pieces(wire: Wire, info_hash: bytes) -> None:
    """TCP: where a request is cut doesn't matter."""
    wire.send(request(info_hash))
    whole = wire.answer()[2]
    content = request(info_hash)
    wire.send(content[:9], content[9:60], content[60:-3], content[-3:])
    assert wire.answer()[2] == whole


def test_requests_that_come_at_once(wire: Wire, info_hash: bytes) -> None:
    """HTTP § pipelining: answers come in the order of the requests."""
    wire.send(request(info_hash))
    wire.answer()
    health = b"GET /healthz HTTP/1.1\r\nHost: registry\r\n\r\n"
    wire.send(request(info_hash) + health + request(info_hash) + health)
    answers = [wire.answer()[2] for _ in range(4)]
    assert answers[1::2] == [b"ok\n"] * 2
    assert [decoded(answer)[b"complete"] for answer in answers[::2]] == [1, 1]


def test_a_body_that_looks_like_an_announce(repo: Repository, info_hash: bytes) -> None:
    """Bad input: bytes of an upload are never taken for a request."""
    with closing(Wire(repo.registry)) as wire:
        wire.send(request(info_hash))
        wire.answer()
        content = request(info_hash, port=6666)
        head = f"POST {repo.begin()} HTTP/1.1\r\nHost: r\r\nContent-Length: {len(content)}\r\n\r\n"
        wire.send(head.replace("POST", "PATCH").encode(), content)
        assert wire.answer()[0] == 202
        wire.send(request(info_hash))
        assert 6666 not in peer_ports(wire.answer()[2])


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (b"GET /announce?%b HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET /announcements?%b HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /announce/?%b HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /announce/a/b?%b HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /announce?%b HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET /announce?%b HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET /announce?%b HTTP/9.9.9\r\nHost: x\r\n\r\n", 400),
    ],
)
def test_what_is_no_announce(wire: Wire, info_hash: bytes, wrong: bytes, status: int) -> None:
    """Bad input: what HTTP or the API refuse is refused at any time, and takes no peer in."""
    wire.send(request(info_hash))
    wire.answer()
    query = request(info_hash, port=6666).split(b"?")[1].split(b" ")[0]
    wire.send(wrong % query)
    assert wire.answer()[0] == status


def test_a_peer_that_stops_is_gone_at_once(wire: Wire, info_hash: bytes) -> None:
    """BEP 3: the next to ask doesn't hear of it."""
    wire.send(request(info_hash, peer="-XX0001-other-peer-1", port=7001))
    wire.answer()
    wire.send(request(info_hash))
    assert 7001 in peer_ports(wire.answer()[2])
    wire.send(request(info_hash, peer="-XX0001-other-peer-1", port=7001, more="&event=stopped"))
    assert peer_ports(wire.answer()[2]) == []
    wire.send(request(info_hash))
    assert 7001 not in peer_ports(wire.answer()[2])


@pytest.mark.parametrize(
    ("options", "address"),
    [((), "127.0.0.1"), (("--trusted-proxies", "127.0.0.0/8"), "203.0.113.9")],
    ids=["by default", "of a trusted proxy"],
)
def test_an_address_in_a_header(options: tuple[str, ...], address: str, tmp_path: Path) -> None:
    """X-Forwarded-For is believed from trusted proxies alone; a peer's own ``ip=`` never."""
    with running(tmp_path / "store", *options) as registry, closing(Wire(registry)) as wire:
        info_hash = info_hash_of(registry.repository("app"))
        wire.send(request(info_hash))
        wire.answer()
        forwarded = "X-Forwarded-For: 203.0.113.9"
        wire.send(request(info_hash, forwarded, path="/announce/a", port=7001, more="&ip=6.6.6.6"))
        wire.answer()
        wire.send(request(info_hash, path="/announce/a", peer="-XX0001-other-peer-1"))
        assert compact(address, 7001) in decoded(wire.answer()[2])[b"peers"]


def test_peers_of_a_label_hear_of_each_other(repo: Repository, wire: Wire) -> None:
    """Zones: the torrent for a zone has it in its announce URL, which is a swarm of its own."""
    repo.push(image("zoned" + repo.name, size=100), "v1")
    plain = parse_metainfo(repo.ask("GET", "_docket/torrent/v1").body)
    torrent = parse_metainfo(repo.ask("GET", "_docket/torrent/v1", zone="rack-1").body)
    assert torrent.info_hash == plain.info_hash
    assert torrent.announce == f"{plain.announce}/rack-1"
    path = urlsplit(torrent.announce).path
    answers = []
    for port in range(7001, 7005):
        wire.send(request(torrent.info_hash, path=path, peer=f"{port:020}", port=port))
        answers.append(peer_ports(wire.answer()[2]))
    (seed,) = answers[0]
    assert answers == [[seed], sorted([7001, seed]), [7001, 7002], [7001, 7002, 7003]]


@pytest.mark.parametrize("zone", ["a b", "a%2Fb", "-", "%F0%9F%98%80", "x" * 65])
def test_labels_that_are_none(repo: Repository, wire: Wire, info_hash: bytes, zone: str) -> None:
    """Bad input: a label is a word; an announce with another is refused as trackers refuse."""
    path = f"/announce/{zone.replace(' ', '%20')}"
    wire.send(request(info_hash, path=path))
    status, _, content = wire.answer()
    assert status == 404 or b"failure reason" in decoded(content)
    assert repo.ask("GET", f"_docket/torrent/v1?zone={zone.replace(' ', '%20')}").status == 400


@pytest.fixture(scope="module")
def ipv6() -> None:
    """This machine has IPv6's loopback address."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        missing("IPv6 on the loopback interface")


@pytest.mark.usefixtures("ipv6")
@pytest.mark.parametrize("bind", ["::1", "::"])
def test_peers_over_ipv6(bind: str, tmp_path: Path) -> None:
    """BEP 7: they come in peers6, and so does the registry's own seed."""
    with (
        registry_at(tmp_path / "store", bind=bind) as url,
        urllib3.PoolManager(retries=False, timeout=30) as pool,
    ):
        registry = Registry(url, tmp_path, pool)
        info_hash = info_hash_of(registry.repository("six"))
        with closing(Wire(registry)) as wire:
            first, second = (announced(wire, info_hash, port) for port in (7001, 7002))
    assert first[b"peers"] == second[b"peers"] == b""
    assert len(first[b"peers6"]) == 18
    assert second[b"peers6"] == compact("::1", 7001) + first[b"peers6"]


@pytest.mark.usefixtures("ipv6")
def test_both_families_at_one_registry(tmp_path: Path) -> None:
    """With --bind :: peers of both families come, and each hears of the seed where it can go."""
    with (
        registry_at(tmp_path / "store", bind="::") as url,
        urllib3.PoolManager(retries=False, timeout=30) as pool,
    ):
        six = Registry(url, tmp_path, pool)
        four = Registry(url.replace("[::1]", "127.0.0.1"), tmp_path, pool)
        info_hash = info_hash_of(six.repository("both"))
        with closing(Wire(four)) as old, closing(Wire(six)) as new:
            first = announced(old, info_hash, 7001, path="/announce/here")
            second = announced(new, info_hash, 7002, path="/announce/here")
    port = first[b"peers"][4:]
    assert first[b"peers"] == socket.inet_aton("127.0.0.1") + port
    assert second[b"peers"] == compact("127.0.0.1", 7001)
    assert second[b"peers6"] == compact("::1", int.from_bytes(port, "big"))
