"""How a session behaves towards its peers: what it asks ahead, and whom it hangs up on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import libtorrent as lt
import pytest

from docket.torrent.metainfo import Metainfo
from docket.torrent.peer.piece_assignment import Priority
from docket.torrent.peer.session import Session
from docket.torrent.peer.session_options import SessionOptions
from docket.torrent.peer.session_tuning import LARGE_SWARM, REQUEST_DEPTH, SWARM_DEPTH, depth
from docket.torrent.peer.swarm import Swarm
from docket.torrent.peer_id import is_registry
from tests.torrent.samples import sample, until

_IMAGE = sample([6_000_000])
_METAINFO = _IMAGE.metainfo()
_REGISTRY, _NEIGHBOUR = "127.0.0.2", "127.0.0.3"
_SLOW = 20_000
_LONG = 60.0
_DEADLINE = 7
"""The priority that libtorrent gives to pieces with one."""


@pytest.fixture
def session() -> Iterator[Session]:
    """A host's, at 127.0.0.1."""
    with closing(Session(SessionOptions(listen="127.0.0.1:0"))) as running:
        yield running


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Swarm]:
    """A registry's seed that is slow enough to be still at it when a test ends."""
    with closing(
        Swarm(SessionOptions(listen=f"{_REGISTRY}:0", is_registry=True, max_upload=_SLOW))
    ) as swarm:
        swarm.seed(_METAINFO, _IMAGE.lay_out(tmp_path / "registry"))
        yield swarm


@pytest.fixture
def announced() -> Iterator[tuple[str, list[str]]]:
    """A tracker where the registry is: its URL, and the events it was told."""
    events: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            events.append(parse_qs(urlsplit(self.path).query).get("event", [""])[0])
            body = b"d8:intervali1800e5:peers0:e"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer((_REGISTRY, 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{_REGISTRY}:{server.server_port}/announce", events
        server.shutdown()
        thread.join()


def _join(session: Session, folder: Path, metainfo: Metainfo = _METAINFO) -> Any:
    params = lt.load_torrent_buffer(metainfo.content)
    params.save_path = str(folder)
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    return session.join(params, is_gateway=True)[0]


def _has_registry(torrent: Any) -> bool:
    return any(is_registry(peer.pid.to_bytes()) for peer in torrent.get_peer_info())


def _meet(torrent: Any, registry: Swarm) -> None:
    torrent.connect_peer((_REGISTRY, registry.port))
    until(lambda: _has_registry(torrent))


def _meet_a_neighbour(torrent: Any, folder: Path, stack: ExitStack) -> None:
    """Returning means that whatever was to connect before has been connected or refused."""
    neighbour = stack.enter_context(
        Swarm(SessionOptions(listen=f"{_NEIGHBOUR}:0", max_upload=_SLOW))
    )
    neighbour.seed(_METAINFO, _IMAGE.lay_out(folder))
    torrent.connect_peer((_NEIGHBOUR, neighbour.port))
    until(lambda: any(peer.ip[0] == _NEIGHBOUR and peer.pid for peer in torrent.get_peer_info()))


def _end(thread: threading.Thread) -> None:
    if thread.ident:
        thread.join()


@pytest.mark.parametrize(
    ("others", "mbit", "trip", "blocks"),
    [
        (0, 1.0, 0.0, REQUEST_DEPTH),
        (0, 10_000.0, 0.1, REQUEST_DEPTH),
        (1, 20.0, 0.0005, SWARM_DEPTH),
        (4, 100.0, 0.0005, SWARM_DEPTH),
        (4, 1000.0, 0.0005, REQUEST_DEPTH),
        (4, 100.0, 0.02, REQUEST_DEPTH),
        (LARGE_SWARM, 1000.0, 0.02, SWARM_DEPTH),
    ],
)
def test_little_is_asked_ahead_where_it_is_enough(
    others: int, mbit: float, trip: float, blocks: int
) -> None:
    """With others that fetch too, on links that two blocks from each of them fill."""
    assert depth(others, rate=mbit * 1e6 / 8, trip_seconds=trip) == blocks


def test_a_session_does_what_any_of_its_downloads_needs(session: Session) -> None:
    """And what it did before, when these are over."""

    def settings() -> tuple[int, bool]:
        settings = session._session.get_settings()
        return settings["request_queue_time"], settings["strict_end_game_mode"]

    first_id, second_id = b"1" * 20, b"2" * 20
    before = settings()
    session.tuning.set_request_depth(first_id, SWARM_DEPTH)
    session.tuning.set_request_depth(second_id, REQUEST_DEPTH)
    session.tuning.set_end_game(second_id, stalled=True)
    assert settings() == (0, False)
    session.tuning.end(first_id)
    assert settings() == (before[0], False)
    session.tuning.end(second_id)
    assert settings() == before


def test_a_host_hangs_up_on_the_registry_and_calls_it_again(
    registry: Swarm, session: Session, tmp_path: Path
) -> None:
    """While it hangs up nothing connects them, whoever begins; then it needs no tracker."""
    torrent = _join(session, tmp_path)
    _meet(torrent, registry)
    session.tuning.disconnect_registry(torrent, True)
    until(lambda: not torrent.get_peer_info())
    torrent.connect_peer((_REGISTRY, registry.port))
    registry.connect(_METAINFO.info_hash, "127.0.0.1", session.port)
    session.tuning.disconnect_registry(torrent, True)
    with ExitStack() as stack:
        _meet_a_neighbour(torrent, tmp_path / "neighbour", stack)
        assert not _has_registry(torrent)
        session.tuning.disconnect_registry(torrent, False)
        until(lambda: _has_registry(torrent))


def test_when_a_download_ends_nobody_is_hung_up_on(
    registry: Swarm, session: Session, tmp_path: Path
) -> None:
    """The registry may call a host that seeds, and another download may need it."""
    torrent = _join(session, tmp_path)
    _meet(torrent, registry)
    session.tuning.disconnect_registry(torrent, True)
    until(lambda: not torrent.get_peer_info())
    session.tuning.end(_METAINFO.info_hash)
    registry.connect(_METAINFO.info_hash, "127.0.0.1", session.port)
    until(lambda: _has_registry(torrent))


def test_hosts_at_the_registrys_address_are_not_hung_up_on(
    registry: Swarm, session: Session, tmp_path: Path
) -> None:
    """Pulls on the registry's machine, or behind its NAT: then the registry isn't either."""
    torrent = _join(session, tmp_path)
    _meet(torrent, registry)
    with (
        closing(Swarm(SessionOptions(listen=f"{_REGISTRY}:0", max_upload=_SLOW))) as host,
        ExitStack() as stack,
    ):
        host.seed(_METAINFO, _IMAGE.lay_out(tmp_path / "host"))
        torrent.connect_peer((_REGISTRY, host.port))
        until(lambda: len([peer for peer in torrent.get_peer_info() if peer.pid]) == 2)
        session.tuning.disconnect_registry(torrent, True)
        _meet_a_neighbour(torrent, tmp_path / "neighbour", stack)
        assert _has_registry(torrent)
        assert len(torrent.get_peer_info()) == 3


def test_the_tracker_is_told_while_the_registry_is_hung_up_on(
    registry: Swarm, session: Session, announced: tuple[str, list[str]], tmp_path: Path
) -> None:
    """It is where the registry is, and would take a silent host for one that is gone."""
    url, events = announced
    metainfo = _IMAGE.metainfo(url)
    torrent = _join(session, tmp_path, metainfo)
    until(lambda: events == ["started"])
    registry.seed(metainfo, _IMAGE.lay_out(tmp_path / "again"))
    _meet(torrent, registry)
    session.tuning.disconnect_registry(torrent, True)
    until(lambda: not torrent.get_peer_info())
    torrent.force_reannounce(0, -1, lt.torrent_handle.ignore_min_interval)
    until(lambda: len(events) == 2)


def test_an_address_that_was_banned_stays_shut_out(
    registry: Swarm, session: Session, tmp_path: Path
) -> None:
    """After the second wrong piece, whatever happens to the registry meanwhile."""
    torrent = _join(session, tmp_path)
    session.tuning.ban(_REGISTRY)
    _meet(torrent, registry)
    session.tuning.disconnect_registry(torrent, True)
    session.tuning.ban(_REGISTRY)
    session.tuning.disconnect_registry(torrent, False)
    session.tuning.end(_METAINFO.info_hash)
    with ExitStack() as stack:
        _meet_a_neighbour(torrent, tmp_path / "neighbour", stack)
        assert not _has_registry(torrent)


def test_who_is_closed_has_told_its_tracker(
    session: Session, announced: tuple[str, list[str]], tmp_path: Path
) -> None:
    """A tracker that hands out a host that is gone costs others time."""
    url, events = announced
    _join(session, tmp_path, _IMAGE.metainfo(url))
    until(lambda: events == ["started"])
    session.close()
    assert events == ["started", "stopped"]


def test_what_was_urgent_alone_is_not_in_a_crowd(tmp_path: Path) -> None:
    """A host to which nothing comes wants all at once; with others it has a share again."""
    blob = _IMAGE.digests[-1]
    with ExitStack() as stack:
        swarms = [
            stack.enter_context(Swarm(SessionOptions(listen="127.0.0.1:0"))) for _ in range(2)
        ]
        over = threading.Event()

        def fetch(swarm: Swarm, folder: Path) -> None:
            swarm.fetch(
                _METAINFO,
                _IMAGE.lay_out(folder, without=[blob]),
                wanted=[blob],
                held=[digest for digest in _IMAGE.digests if digest != blob],
                have={},
                on_progress=lambda _progress: None,
                on_complete=lambda _digest, _path: None,
                patience=_LONG,
                cancelled=over,
            )

        def priorities(swarm: Swarm) -> set[int]:
            member = swarm._members.get(_METAINFO.info_hash)
            return set(member.torrent.get_piece_priorities()) if member else set()

        threads = [
            threading.Thread(target=fetch, args=(swarm, tmp_path / str(number)))
            for number, swarm in enumerate(swarms)
        ]
        for thread in threads:
            stack.callback(_end, thread)
        stack.callback(over.set)
        threads[0].start()
        until(lambda: _DEADLINE in priorities(swarms[0]))
        threads[1].start()
        until(lambda: bool(swarms[1].info_hashes()))
        swarms[0].connect(_METAINFO.info_hash, "127.0.0.1", swarms[1].port)
        until(lambda: priorities(swarms[0]) <= {*Priority})
