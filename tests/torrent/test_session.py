"""A session and the registry: what a host says it is, and when it hangs up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import libtorrent as lt
import pytest

from docket.torrent.announce import GATE_PEER, HOST_PEER
from docket.torrent.session import Session, is_registry_peer, peers_of
from docket.torrent.swarm import Swarm
from tests.torrent.samples import sample, until

_IMAGE = sample([6_000_000])
_METAINFO = _IMAGE.metainfo()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Swarm]:
    """A registry's seed that is slow enough to be still at it when a test ends."""
    with closing(Swarm(listen="127.0.0.1:0", is_registry=True, max_upload=20_000)) as swarm:
        swarm.seed(_METAINFO, _IMAGE.lay_out(tmp_path / "registry"))
        yield swarm


@pytest.fixture
def session() -> Iterator[Session]:
    """A host's."""
    with closing(Session(listen="127.0.0.1:0")) as found:
        yield found


def _join(session: Session, folder: Path, *, is_gate: bool) -> tuple[Any, bytes]:
    params = lt.load_torrent_buffer(_METAINFO.content)
    params.save_path = str(folder)
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    return session.join(params, is_gate=is_gate)


def _has_registry(torrent: Any) -> bool:
    return any(is_registry_peer(one.pid) for one in torrent.get_peer_info())


def test_a_host_hangs_up_on_the_registry_and_calls_it_again(
    registry: Swarm, session: Session, tmp_path: Path
) -> None:
    """While it hangs up nothing connects them, whoever begins; then it needs no tracker."""
    torrent, _ = _join(session, tmp_path, is_gate=True)
    torrent.connect_peer(("127.0.0.1", registry.port))
    until(lambda: _has_registry(torrent))
    session.part(torrent, True)
    until(lambda: not torrent.get_peer_info())
    torrent.connect_peer(("127.0.0.1", registry.port))
    registry.connect(_METAINFO.info_hash, "127.0.0.1", session.port)
    session.part(torrent, True)
    assert not _has_registry(torrent)
    session.part(torrent, False)
    until(lambda: _has_registry(torrent))


def test_parting_from_nobody_is_no_error(session: Session, tmp_path: Path) -> None:
    """A host that never met the registry, or that calls it twice."""
    torrent, _ = _join(session, tmp_path, is_gate=True)
    for is_apart in (True, False, False):
        session.part(torrent, is_apart)


@pytest.mark.parametrize(("is_gate", "begins"), [(True, GATE_PEER), (False, HOST_PEER)])
def test_peers_hear_who_is_a_gate(
    session: Session, tmp_path: Path, is_gate: bool, begins: bytes
) -> None:
    """By its id, which is what the host goes by itself."""
    torrent, own = _join(session, tmp_path / "one", is_gate=is_gate)
    with closing(Session(listen="127.0.0.1:0")) as other:
        there, _ = _join(other, tmp_path / "other", is_gate=False)
        there.connect_peer(("127.0.0.1", session.port))
        until(lambda: own in peers_of(there)[1])
    assert own.startswith(begins)
    assert torrent.is_valid()
