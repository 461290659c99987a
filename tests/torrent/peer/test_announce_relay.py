"""Announces that docket's HTTP client passes on, and what a host reports of its tracker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from docket.errors import RegistryUnreachable
from docket.torrent.metainfo import with_announce
from docket.torrent.peer.announce_relay import AnnounceRelay
from docket.torrent.peer.download import FetchResult
from docket.torrent.peer.session_options import SessionOptions, interfaces
from docket.torrent.peer.swarm import Swarm
from docket.torrent.tracker.announce import Announce, failure
from docket.torrent.tracker.peers import Tracker
from tests.torrent.samples import sample, until

_IMAGE = sample([200_000])
_METAINFO = _IMAGE.metainfo()
_BLOB = _IMAGE.digests[-1]
_PATIENCE = 1.0


def fetched(swarm: Swarm, folder: Path, announce: str, patience: float) -> FetchResult:
    """How a fetch of the layer ends, with a tracker at *announce*."""
    return swarm.fetch(
        with_announce(_METAINFO, announce),
        _IMAGE.lay_out(folder, without=[_BLOB]),
        wanted=[_BLOB],
        held=[digest for digest in _IMAGE.digests if digest != _BLOB],
        have={},
        on_progress=lambda _progress: None,
        on_complete=lambda _digest, _path: None,
        patience=patience,
    )


@pytest.fixture
def seed(tmp_path: Path) -> Iterator[Swarm]:
    """The registry's seed."""
    with Swarm(SessionOptions(listen="127.0.0.1:0", is_registry=True)) as swarm:
        swarm.seed(_METAINFO, _IMAGE.lay_out(tmp_path / "seed"))
        yield swarm


@pytest.fixture
def send(seed: Swarm) -> Callable[[str], bytes]:
    """A tracker that names the seed."""
    tracker = Tracker()

    def take(query: str) -> bytes:
        report = Announce.parse(query.encode(), address="127.0.0.1")
        return tracker.announce(report, extra=[("127.0.0.1", seed.port)])

    return take


def test_announces_reach_the_tracker_until_the_swarm_has_left(
    send: Callable[[str], bytes], tmp_path: Path
) -> None:
    """Peers come of the tracker's response, and "stopped" is still passed on at the end."""
    events: list[str] = []

    def take(query: str) -> bytes:
        events.append(dict(parse_qsl(query, encoding="latin-1")).get("event", ""))
        return send(query)

    with Swarm(SessionOptions(listen="127.0.0.1:0")) as swarm:
        url = swarm.announce_through(take)
        result = fetched(swarm, tmp_path / "host", url, 30.0)
        until(lambda: "completed" in events)
    assert not result.stalled
    assert result.tracker_error == ""
    assert (events[0], events[-1]) == ("started", "stopped")
    parts = urlsplit(url)
    with pytest.raises(OSError, match="refused"):
        _asked(parts.netloc, parts.path)


def test_a_failure_of_the_client_is_the_reason(tmp_path: Path) -> None:
    """In a line: a pull that falls back to HTTP prints it."""

    def fail(_query: str) -> bytes:
        raise RegistryUnreachable("http://registry_1:8000", "no route to host")

    with Swarm(SessionOptions(listen="127.0.0.1:0")) as swarm:
        url = swarm.announce_through(fail)
        result = fetched(swarm, tmp_path, url, _PATIENCE)
    assert result.stalled
    assert "registry_1" in result.tracker_error
    assert "no route to host" in result.tracker_error


@pytest.mark.parametrize(
    ("announce", "reason"),
    [
        ("http://127.0.0.1:1/announce", "Connection refused"),
        ("http://registry.invalid:8000/announce", "not found"),
        ("http://registry_1:8000/announce", "can't use"),
        ("http://b\u00fccher.example:8000/announce", "can't use"),
        ("http://[::1]:1/announce", "no address of this host"),
    ],
)
def test_a_tracker_that_cannot_be_reached_is_reported(
    tmp_path: Path, announce: str, reason: str
) -> None:
    """Whether the name, the port, the family of addresses or libtorrent itself is the reason."""
    with Swarm(SessionOptions(listen="127.0.0.1:0")) as swarm:
        result = fetched(swarm, tmp_path, announce, _PATIENCE)
    assert result.stalled
    assert announce.split("//")[1] in result.tracker_error
    assert reason.lower() in result.tracker_error.lower()


def test_a_refusal_of_the_tracker_is_reported(tmp_path: Path) -> None:
    """In its own words."""
    with Swarm(SessionOptions(listen="127.0.0.1:0")) as swarm:
        url = swarm.announce_through(lambda _query: failure("this registry has no such torrent"))
        result = fetched(swarm, tmp_path, url, _PATIENCE)
    assert "this registry has no such torrent" in result.tracker_error


def test_a_tracker_that_names_nobody_is_no_failure(tmp_path: Path) -> None:
    """It was reached: the reason lies elsewhere."""
    with Swarm(SessionOptions(listen="127.0.0.1:0")) as swarm:
        url = swarm.announce_through(lambda _query: b"d8:intervali15e5:peers0:e")
        result = fetched(swarm, tmp_path, url, _PATIENCE)
    assert result.stalled
    assert result.tracker_error == ""


@pytest.mark.parametrize("path", ["/announce", "/", "/../x", "/" + "0" * 32 + "/announce"])
def test_only_its_own_url_is_served(path: str) -> None:
    """Another user of the machine can't announce, nor use the host's credentials."""
    queries: list[str] = []

    def take(query: str) -> bytes:
        queries.append(query)
        return b"de"

    with closing(AnnounceRelay(take)) as relay:
        parts = urlsplit(relay.url)
        assert _asked(parts.netloc, f"{path}?info_hash=x") == (404, b"")
        assert _asked(parts.netloc, f"{parts.path}?{'x' * 3000}") == (404, b"")
        assert queries == []
        assert _asked(parts.netloc, f"{parts.path}?left=1") == (200, b"de")
        assert queries == ["left=1"]


def test_closing_waits_for_no_tracker() -> None:
    """One that doesn't answer holds up no command."""
    release = threading.Event()
    began = threading.Event()

    def wait(_query: str) -> bytes:
        began.set()
        release.wait(30)
        return b"de"

    relay = AnnounceRelay(wait)
    parts = urlsplit(relay.url)
    client = threading.Thread(target=_asked, args=(parts.netloc, f"{parts.path}?x=1"))
    client.start()
    try:
        assert began.wait(10)
        closing_thread = threading.Thread(target=relay.close)
        closing_thread.start()
        closing_thread.join(10)
        assert not closing_thread.is_alive()
    finally:
        release.set()
        client.join()


def test_a_host_listens_over_both_families_at_one_port() -> None:
    """By default; an address that was named is the only one."""
    four, six = interfaces(SessionOptions().listen).split(",")
    assert four.startswith("0.0.0.0:")
    assert six == f"[::]:{four.rpartition(':')[2]}"
    assert interfaces("127.0.0.1:7001") == "127.0.0.1:7001"
    assert interfaces("[::]:7001") == "0.0.0.0:7001,[::]:7001"


def _asked(netloc: str, target: str) -> tuple[int, bytes]:
    """Status and content of a GET; the content of an error doesn't matter."""
    with closing(HTTPConnection(netloc, timeout=30)) as connection:
        connection.request("GET", target)
        response = connection.getresponse()
        content = response.read()
    return response.status, content if response.status == 200 else b""
