"""A session and the registry: what a host says it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import libtorrent as lt
import pytest

from docket.torrent.peer.session import Session, peers_of
from docket.torrent.peer.session_options import SessionOptions
from docket.torrent.peer_id import GATEWAY_PEER, HOST_PEER
from tests.torrent.samples import sample, until

_IMAGE = sample([6_000_000])
_METAINFO = _IMAGE.metainfo()


@pytest.fixture
def session() -> Iterator[Session]:
    """A host's."""
    with closing(Session(SessionOptions(listen="127.0.0.1:0"))) as running:
        yield running


def _join(session: Session, folder: Path, *, is_gateway: bool) -> tuple[Any, bytes]:
    params = lt.load_torrent_buffer(_METAINFO.content)
    params.save_path = str(folder)
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    return session.join(params, is_gateway=is_gateway)


@pytest.mark.parametrize(("is_gateway", "begins"), [(True, GATEWAY_PEER), (False, HOST_PEER)])
def test_peers_hear_who_is_a_gate(
    session: Session, tmp_path: Path, is_gateway: bool, begins: bytes
) -> None:
    """By its id, which is what the host goes by itself."""
    _, own = _join(session, tmp_path / "one", is_gateway=is_gateway)
    with closing(Session(SessionOptions(listen="127.0.0.1:0"))) as second:
        handle, _ = _join(second, tmp_path / "other", is_gateway=False)
        handle.connect_peer(("127.0.0.1", session.port))
        until(lambda: own in peers_of(handle)[1])
    assert own.startswith(begins)
