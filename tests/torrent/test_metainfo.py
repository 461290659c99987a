"""The torrent of an image: how it is laid out, and what is refused as one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libtorrent as lt
import pytest

from docket.errors import InvalidMetainfo
from docket.oci.digest import Digest
from docket.oci.manifest import OCI_MANIFEST
from docket.pieces import HASH_SIZE, PIECE_LENGTH
from docket.torrent.metainfo import (
    INDEX_FILE,
    LAYOUT_FILE,
    MAX_TORRENT,
    Metainfo,
    image_metainfo,
    layout_files,
    parse_metainfo,
    with_announce,
)
from tests.torrent.samples import Sample, decoded, piece_hashes, sample

_ANNOUNCE = "http://10.0.0.1:8000/announce"
_CHECK_SECONDS = 30
_LAYERS = (3 * PIECE_LENGTH + 5, PIECE_LENGTH, 10)
_IMAGE = sample(_LAYERS)


def test_every_file_begins_a_piece() -> None:
    """Files stand on piece boundaries: oci-layout, manifest, config, layers, then index.json."""
    metainfo = _IMAGE.metainfo()
    paths = [LAYOUT_FILE, *(digest.layout_path for digest in _IMAGE.digests), INDEX_FILE]
    assert [file.path for file in metainfo.files] == paths
    assert [file.digest for file in metainfo.files] == [None, *_IMAGE.digests, None]
    assert [file.pieces for file in metainfo.files] == [1, 1, 1, 4, 1, 1, 1]
    assert [file.first_piece for file in metainfo.files] == [0, 1, 2, 3, 7, 8, 9]
    assert metainfo.piece_count == 10
    assert metainfo.name == _IMAGE.digests[0].hex


def test_a_layer_has_the_same_pieces_in_every_torrent() -> None:
    """The hashes of a blob are its own, wherever it stands."""
    layer = _IMAGE.blobs[1]
    other_image = Sample(b"another manifest", (b"{}", b"a layer before it" * 99_999, layer))
    for image in (_IMAGE, other_image):
        metainfo = image.metainfo()
        (file,) = [file for file in metainfo.files if file.digest == Digest.of(layer)]
        assert metainfo.hashes(file) == piece_hashes(layer)


def test_only_the_announce_url_differs_between_registries() -> None:
    """The same image is the same swarm, whoever made the torrent and however it is announced."""
    here = _IMAGE.metainfo(_ANNOUNCE)
    elsewhere = _IMAGE.metainfo("http://elsewhere:6969/announce")
    assert here.info_hash == elsewhere.info_hash
    assert here.content != elsewhere.content
    assert with_announce(here, elsewhere.announce) == elsewhere
    assert with_announce(here, here.announce) is here


def test_a_layer_that_an_image_repeats_stands_once() -> None:
    """The torrent has each blob once; so it is valid with a layer twice."""
    twice = Sample(_IMAGE.manifest, (*_IMAGE.blobs, _IMAGE.blobs[1]))
    assert twice.metainfo().info_hash == _IMAGE.metainfo().info_hash


def test_an_empty_blob_has_no_piece() -> None:
    """A blob of no bytes is a file without pieces, and the torrent stays valid."""
    image = Sample(b"manifest", (b"", b"layer"))
    metainfo = parse_metainfo(image.metainfo().content)
    assert [file.pieces for file in metainfo.files] == [1, 1, 0, 1, 1]
    assert metainfo.piece_count == 4


def test_what_is_made_is_read_again() -> None:
    """Parsing a torrent gives the value that made it."""
    metainfo = _IMAGE.metainfo(_ANNOUNCE)
    assert parse_metainfo(metainfo.content) == metainfo
    assert hashlib.sha1(_info_bytes(metainfo)).digest() == metainfo.info_hash


def test_the_torrent_is_private() -> None:
    """BEP 27: peers are those that the tracker names, no others."""
    assert decoded(_IMAGE.metainfo().content)[b"info"][b"private"] == 1


def test_the_layout_names_one_manifest_without_its_names() -> None:
    """An image layout with one manifest, and nothing that tells repositories and tags apart."""
    digest = Digest.of(_IMAGE.manifest)
    files = layout_files(digest, media_type=OCI_MANIFEST, size=700)
    assert json.loads(files[LAYOUT_FILE]) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads(files[INDEX_FILE])
    assert index["manifests"] == [{"mediaType": OCI_MANIFEST, "digest": str(digest), "size": 700}]
    assert index["schemaVersion"] == 2
    assert b"annotations" not in files[INDEX_FILE]


def test_libtorrent_finds_every_piece_right(tmp_path: Path) -> None:
    """A full check of the laid-out folder, pads being zeros, ends as a seed with all pieces."""
    metainfo = _IMAGE.metainfo()
    folder = _IMAGE.lay_out(tmp_path)
    status = _checked(metainfo, folder)
    assert status.state == lt.torrent_status.states.seeding
    assert list(status.pieces) == [True] * metainfo.piece_count
    assert not (folder / ".pad").exists()


def test_libtorrent_finds_a_wrong_piece(tmp_path: Path) -> None:
    """The check above is a real one: a wrong byte is a missing piece."""
    metainfo = _IMAGE.metainfo()
    folder = _IMAGE.lay_out(tmp_path)
    path = folder / Digest.of(_IMAGE.blobs[1]).layout_path
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[PIECE_LENGTH + 3] ^= 1
    path.write_bytes(content)
    status = _checked(metainfo, folder)
    assert [number for number, have in enumerate(status.pieces) if not have] == [4]


Change = Callable[[dict[bytes, Any]], None]


def _path(*parts: bytes) -> Change:
    def change(info: dict[bytes, Any]) -> None:
        _layer_row(info)[b"path"] = list(parts)

    return change


def _row(**values: Any) -> Change:
    def change(info: dict[bytes, Any]) -> None:
        for name, value in values.items():
            key = name.replace("_", " ").encode("utf-8", "surrogateescape")
            _layer_row(info)[key] = value

    return change


def _info(**values: Any) -> Change:
    def change(info: dict[bytes, Any]) -> None:
        info.update({name.replace("_", " ").encode(): value for name, value in values.items()})

    return change


def _single_file(info: dict[bytes, Any]) -> None:
    info[b"length"] = sum(row[b"length"] for row in info.pop(b"files"))


def _without_pads(info: dict[bytes, Any]) -> None:
    info[b"files"] = [row for row in info[b"files"] if b"attr" not in row]
    total = sum(row[b"length"] for row in info[b"files"])
    info[b"pieces"] = info[b"pieces"][: -(-total // PIECE_LENGTH) * HASH_SIZE]


def _pad_too_long(info: dict[bytes, Any]) -> None:
    pad = next(row for row in info[b"files"] if row.get(b"attr") == b"p")
    pad[b"length"] += PIECE_LENGTH
    info[b"pieces"] += bytes(HASH_SIZE)


def _twice(info: dict[bytes, Any]) -> None:
    at = info[b"files"].index(_layer_row(info))
    info[b"files"][at:at] = info[b"files"][at : at + 2]
    info[b"pieces"] += bytes(4 * HASH_SIZE)


def _negative(info: dict[bytes, Any]) -> None:
    rows = info[b"files"]
    rows.append({b"length": -5, b"path": [b"blobs", b"sha256", b"0" * 64]})
    rows.append({b"length": 5, b"path": [b".pad", b"5"], b"attr": b"p"})


def _less_pieces(info: dict[bytes, Any]) -> None:
    info[b"pieces"] = info[b"pieces"][:-HASH_SIZE]


def _more_pieces(info: dict[bytes, Any]) -> None:
    info[b"pieces"] += bytes(HASH_SIZE)


def _ragged_pieces(info: dict[bytes, Any]) -> None:
    info[b"pieces"] = info[b"pieces"][:-1]


def _pad_path(path: list[Any]) -> Change:
    def change(info: dict[bytes, Any]) -> None:
        next(row for row in info[b"files"] if row.get(b"attr") == b"p")[b"path"] = path

    return change


_HEX = "ab" * 32

REFUSED: dict[str, Change] = {
    "path upwards": _path(b"..", b"..", b"etc", b"passwd"),
    "path absolute": _path(b"", b"etc", b"passwd"),
    "path upwards within": _path(b"blobs", b"sha256", b"..", b"..", b"..", b"x"),
    "path with a slash in a part": _path(b"blobs/sha256/" + _HEX.encode()),
    "path of another layout": _path(b"manifest.json"),
    "path without a digest": _path(b"blobs", b"sha256", b"layer.tar"),
    "path in capitals": _path(b"blobs", b"sha256", _HEX.upper().encode()),
    "path of an unknown algorithm": _path(b"blobs", b"md5", b"ab" * 16),
    "path that is empty": _path(),
    "file with a key that is no text": _row(**{"\udcff": b""}),
    "pad whose path has keys that are no texts": _pad_path([{b"\xff": b"", b"a": b""}]),
    "path by another key": _row(**{"path.utf-8": [b"..", b"evil"]}),
    "symlink": _row(attr=b"l", symlink_path=[b"..", b"..", b"etc"]),
    "pad that is a symlink": _row(attr=b"lp"),
    "name upwards": _info(name=b"../" + b"a" * 61),
    "name of dots": _info(name=b".."),
    "name that is no digest": _info(name=b"ubuntu.iso"),
    "name by another key": _info(**{"name.utf-8": b"ab" * 32}),
    "single file": _single_file,
    "no pads": _without_pads,
    "pad too long": _pad_too_long,
    "file twice": _twice,
    "negative length": _negative,
    "too few pieces": _less_pieces,
    "too many pieces": _more_pieces,
    "pieces cut off": _ragged_pieces,
    "pieces of none": _info(pieces=b""),
    "pieces of no length": _info(piece_length=0),
    "pieces of negative length": _info(piece_length=-PIECE_LENGTH),
    "pieces of odd length": _info(piece_length=PIECE_LENGTH + 1),
    "length of text": _row(length=b"many"),
    "files of text": _info(files=b"blobs"),
    "hybrid": _info(meta_version=2, file_tree={b"evil": {b"": {b"length": 1}}}),
}


@pytest.mark.parametrize("piece_length", [1 << 13, 1 << 25, 1 << 30, 1 << 40])
def test_pieces_of_an_absurd_length_are_refused(piece_length: int) -> None:
    """A piece is read into memory as a whole, so a torrent may not make it as long as it likes."""
    torrent = decoded(_IMAGE.metainfo().content)
    info = torrent[b"info"]
    files = [row for row in info[b"files"] if b"attr" not in row]
    info[b"piece length"] = piece_length
    info[b"files"] = []
    for row in files:
        pad = {b"attr": b"p", b"length": -row[b"length"] % piece_length, b"path": [b".pad", b"1"]}
        info[b"files"] += [row, pad] if row is not files[-1] else [row]
    pieces = sum(-(-row[b"length"] // piece_length) for row in files)
    info[b"pieces"] = bytes(HASH_SIZE) * pieces
    with pytest.raises(InvalidMetainfo, match="piece"):
        parse_metainfo(lt.bencode(torrent))


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED.keys())
def test_other_torrents_are_refused(change: Change) -> None:
    """What docket would not make is no image's torrent; no path in one can lead outside."""
    torrent = decoded(_IMAGE.metainfo(_ANNOUNCE).content)
    change(torrent[b"info"])
    with pytest.raises(InvalidMetainfo):
        parse_metainfo(lt.bencode(torrent))


@pytest.mark.parametrize(
    "more",
    [
        {b"url-list": b"http://127.0.0.9/x/"},
        {b"url-list": [b"http://127.0.0.9/x/", b"ftp://127.0.0.9/"]},
        {b"httpseeds": [b"http://127.0.0.9/seed"]},
        {b"announce-list": [[b"http://127.0.0.9/announce"], [b"udp://127.0.0.9:1"]]},
        {b"nodes": [[b"127.0.0.9", 6881]]},
        {b"comment": b"x", b"encoding": b"UTF-8", b"azureus_properties": {b"dht_backup": 1}},
    ],
)
def test_a_torrent_is_made_anew_of_what_was_understood(more: dict[bytes, Any]) -> None:
    """A lying registry can make a host ask no web seed, node or other tracker."""
    honest = _IMAGE.metainfo(_ANNOUNCE)
    content = lt.bencode({**decoded(honest.content), **more})
    assert content != honest.content
    parsed = parse_metainfo(content)
    assert parsed == honest
    params = lt.load_torrent_buffer(parsed.content)
    assert (params.url_seeds, params.http_seeds, params.dht_nodes) == ([], [], [])
    assert params.trackers == [_ANNOUNCE]


@pytest.mark.parametrize(
    "announce",
    [b"file:///etc/passwd", b"http://", b"http://a b/", b"http://x/\r\nX: y", b"x" * 3000],
)
def test_a_tracker_that_is_no_url_is_refused(announce: bytes) -> None:
    """Whatever libtorrent would make of it."""
    content = lt.bencode({**decoded(_IMAGE.metainfo().content), b"announce": announce})
    with pytest.raises(InvalidMetainfo):
        parse_metainfo(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>no torrent</html>",
        b"de",
        b"i5e",
        b"d4:infod4:name",
        b"d4:infoi5ee",
        b"d4:infolee",
        b"d4:info" * 20_000,
        b"l" * 1_000_000,
        b"d4:infod5:filesle4:name64:" + b"a" * 64 + b"12:piece lengthi262144e6:pieces0:ee",
        b"9" * 30 + b":x",
        bytes(range(256)),
    ],
)
def test_junk_is_refused(content: bytes) -> None:
    """Whatever the bytes are, they are refused as no torrent, not with another error."""
    with pytest.raises(InvalidMetainfo):
        parse_metainfo(content)


def test_a_torrent_cut_anywhere_is_refused() -> None:
    """No beginning of a torrent is one."""
    content = Sample(b"m", (b"c", b"l")).metainfo(_ANNOUNCE).content
    for end in range(len(content)):
        with pytest.raises(InvalidMetainfo):
            parse_metainfo(content[:end])


def test_a_huge_torrent_is_refused_unread() -> None:
    """More than 10 MB are no torrent of an image, whatever they say."""
    torrent = decoded(_IMAGE.metainfo(_ANNOUNCE).content)
    torrent[b"comment"] = b"x" * MAX_TORRENT
    with pytest.raises(InvalidMetainfo, match="larger"):
        parse_metainfo(lt.bencode(torrent))


def test_a_large_image_is_still_a_torrent() -> None:
    """An image of 100 GB in 127 layers fits into the size that is read."""
    pieces_each = 3_000
    digests = [Digest.of(bytes([number])) for number in range(127)]
    size = pieces_each * PIECE_LENGTH
    pieces = dict.fromkeys(digests, bytes(pieces_each * HASH_SIZE))
    metainfo = image_metainfo(
        Digest.of(b"manifest"),
        media_type=OCI_MANIFEST,
        size=8,
        blobs=[(digest, size) for digest in digests],
        pieces=pieces | {Digest.of(b"manifest"): piece_hashes(b"manifest")},
        announce=_ANNOUNCE,
    )
    assert parse_metainfo(metainfo.content) == metainfo


def _info_bytes(metainfo: Metainfo) -> bytes:
    return bytes(lt.bencode(decoded(metainfo.content)[b"info"]))


def _layer_row(info: dict[bytes, Any]) -> dict[bytes, Any]:
    """The entry of the first layer."""
    row: dict[bytes, Any] = max(info[b"files"], key=lambda file_row: file_row[b"length"])
    return row


def _checked(metainfo: Metainfo, folder: Path) -> Any:
    """The torrent's status once libtorrent, told nothing of its pieces, has hashed all of them."""
    offline = {"listen_interfaces": "", "enable_dht": False, "enable_lsd": False}
    mask = lt.alert.category_t.status_notification | lt.alert.category_t.storage_notification
    session: Any = lt.session({**offline, "alert_mask": int(mask)})  # type: ignore[call-overload]
    params = lt.load_torrent_buffer(metainfo.content)
    params.save_path = str(folder.parent)
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    torrent = session.add_torrent(params)
    while session.wait_for_alert(_CHECK_SECONDS * 1000):
        if any(isinstance(alert, lt.torrent_checked_alert) for alert in session.pop_alerts()):
            return torrent.status()
    raise AssertionError("libtorrent didn't check the files")
