"""Torrents, as a host reads them before it hands them to libtorrent."""

from __future__ import annotations

from typing import Any

import libtorrent as lt

from docket.errors import InvalidMetainfo
from docket.torrent.metainfo import INDEX_FILE, LAYOUT_FILE, Metainfo, parse_metainfo, with_announce
from tests.fuzz.properties import refused_or_fine
from tests.fuzz.target import Target, always
from tests.torrent.samples import Sample

_ANNOUNCE = "http://10.0.0.1:8000/announce"


def seeds() -> list[bytes]:
    """Torrents of small images, one of them with an empty layer."""
    images = [
        Sample(b"{}", (b"{ }", b"layer")),
        Sample(b"{}", (b"{ }", b"", b"x" * 300_000)),
        Sample(b"{}", (b"{ }",)),
    ]
    return [image.metainfo(url).content for image in images for url in ("", _ANNOUNCE)]


def check(content: bytes) -> None:
    """What docket takes for an image's torrent has no path outside, to libtorrent either."""
    with refused_or_fine(InvalidMetainfo):
        metainfo = parse_metainfo(content)
        _check_files(metainfo)
        _check_against_libtorrent(metainfo)
        announced_elsewhere = with_announce(metainfo, "http://10.0.0.2/announce")
        assert parse_metainfo(announced_elsewhere.content).info_hash == metainfo.info_hash


def _check_files(metainfo: Metainfo) -> None:
    assert len(metainfo.name) == 64
    for file in metainfo.files:
        expected = file.digest.layout_path if file.digest else file.path
        assert file.path == expected
        assert file.digest or file.path in (LAYOUT_FILE, INDEX_FILE)
        assert len(metainfo.hashes(file)) == file.pieces * 20
        assert file.pieces * metainfo.piece_length >= file.size >= 0


def _check_against_libtorrent(metainfo: Metainfo) -> None:
    try:
        info: Any = lt.load_torrent_buffer(metainfo.content).ti
    except RuntimeError:
        return  # `docket.torrent.peer.swarm` makes an error of its own of it
    assert info.info_hash().to_bytes() == metainfo.info_hash
    files = info.files()
    pad = lt.file_storage.flag_pad_file
    shown = [
        (files.file_path(number), files.file_size(number))
        for number in range(files.num_files())
        if not files.file_flags(number) & pad
    ]
    assert shown == [(f"{metainfo.name}/{file.path}", file.size) for file in metainfo.files]


TORRENT = Target(
    always(check),
    seeds,
    words=(b"4:attr1:l", b"4:attr1:p", b"2:..", b"i-1e", b"12:piece length", b"10:path.utf-8le"),
)
