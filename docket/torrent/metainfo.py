"""The torrent of an image: an OCI image layout whose blobs begin on piece boundaries (BEP 3, 47).

The files are ``oci-layout``, the manifest, the config and each layer, every one of them padded to
the end of its last piece; then ``index.json``, tiny and unpadded. So the piece hashes of a blob are
the same in every torrent that contains it.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torf

from docket.errors import DocketError, InvalidManifest, InvalidMetainfo
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor, Index, Manifest, dump, image_index
from docket.pieces import HASH_SIZE, PIECE_LENGTH, PieceHasher, hashes_size

LAYOUT_FILE = "oci-layout"
INDEX_FILE = "index.json"

MAX_TORRENT = 10_000_000
"""Bytes of a torrent file; torf reads no more."""

MAX_PIECE_LENGTH = 16 << 20
"""Bytes of a piece in a torrent that is read; libtorrent and `have_pieces` hold whole ones."""

_CREATED_BY = "docket"
_ANNOUNCE = re.compile(r"(?:https?|udp)://[!-~]{1,2000}")
_PAD_FOLDER = ".pad"

# some readers take other keys for other names, links or a version 2 torrent
_INFO_KEYS = frozenset({"files", "name", "piece length", "pieces", "private"})
_FILE_KEYS = frozenset({"attr", "length", "path"})


@dataclass(frozen=True, slots=True)
class File:
    """A file of a torrent; *digest* is None for the layout's two small files."""

    path: str
    size: int
    digest: Digest | None
    first_piece: int
    pieces: int


@dataclass(frozen=True, slots=True)
class Metainfo:
    """A torrent; *content* is the bencoded file, *files* are those that aren't pads."""

    info_hash: bytes
    name: str
    piece_length: int
    files: tuple[File, ...]
    announce: str
    content: bytes
    all_hashes: bytes

    @property
    def piece_count(self) -> int:
        """Pieces, with those of the small files."""
        return len(self.all_hashes) // HASH_SIZE

    def hashes(self, file: File) -> bytes:
        """The SHA-1s of the pieces of *file*, 20 bytes each."""
        start = file.first_piece * HASH_SIZE
        return self.all_hashes[start : start + file.pieces * HASH_SIZE]


def layout_files(manifest: Digest, *, media_type: str, size: int) -> dict[str, bytes]:
    """``oci-layout`` and ``index.json`` of an image layout that holds this one manifest.

    Without names in it, so that images that differ in their tags alone are one torrent.
    """
    return {
        LAYOUT_FILE: dump({"imageLayoutVersion": "1.0.0"}),
        INDEX_FILE: image_index([Descriptor(media_type, manifest, size)]),
    }


class ImageManifest(Protocol):
    """An image manifest as a store or a registry has it."""

    @property
    def digest(self) -> Digest: ...
    @property
    def media_type(self) -> str: ...
    @property
    def content(self) -> bytes: ...
    @property
    def parsed(self) -> Manifest | Index: ...


def metainfo_of(
    manifest: ImageManifest, *, pieces: Mapping[Digest, bytes], announce: str = ""
) -> Metainfo:
    """The torrent of *manifest*; see `image_metainfo`. Raises `InvalidManifest` for an index."""
    return image_metainfo(
        manifest.digest,
        media_type=manifest.media_type,
        size=len(manifest.content),
        blobs=[(blob.digest, blob.size) for blob in image_blobs(manifest)],
        pieces=pieces,
        announce=announce,
    )


def image_blobs(manifest: ImageManifest) -> list[Descriptor]:
    """Config and layers, in the torrent's order. Raises `InvalidManifest` for an index."""
    image = manifest.parsed
    if not isinstance(image, Manifest):
        raise InvalidManifest("an index has no torrent of its own; request one of its manifests")
    return [image.config, *image.layers]


def lay_out(
    torrent: Metainfo,
    manifest: ImageManifest,
    *,
    link: Callable[[File, Digest], None],
    write: Callable[[str, bytes], None],
) -> None:
    """Make the torrent's folder: *link* gets each blob's file, *write* the two small files."""
    for file in torrent.files:
        if file.digest:
            link(file, file.digest)
    small = layout_files(
        manifest.digest, media_type=manifest.media_type, size=len(manifest.content)
    )
    for name, content in small.items():
        write(name, content)


def image_metainfo(
    manifest: Digest,
    *,
    media_type: str,
    size: int,
    blobs: Sequence[tuple[Digest, int]],
    pieces: Mapping[Digest, bytes],
    announce: str,
    piece_length: int = PIECE_LENGTH,
) -> Metainfo:
    """The torrent of an image: *blobs* are config and layers with their sizes in bytes.

    *pieces* has the hashes of all of them and of the manifest; no blob is read. Equal arguments
    give the same info-hash, on every registry and host. Raises `InvalidMetainfo` for an *announce*
    that is no URL.
    """
    small = layout_files(manifest, media_type=media_type, size=size)
    rows: list[dict[str, Any]] = []
    hashes = bytearray()

    def add(path: str, length: int, piece_hashes: bytes) -> None:
        rows.append({"length": length, "path": path.split("/")})
        if pad := -length % piece_length:
            rows.append({"attr": "p", "length": pad, "path": [_PAD_FOLDER, str(pad)]})
        hashes.extend(piece_hashes)

    add(LAYOUT_FILE, len(small[LAYOUT_FILE]), _hashed(small[LAYOUT_FILE], piece_length))
    for digest, length in dict([(manifest, size), *blobs]).items():
        add(digest.layout_path, length, pieces[digest])
    index = small[INDEX_FILE]
    rows.append({"length": len(index), "path": [INDEX_FILE]})
    hashes += hashlib.sha1(index).digest()
    return _metainfo(
        {
            "files": rows,
            "name": manifest.hex,
            "piece length": piece_length,
            "pieces": bytes(hashes),
            "private": 1,
        },
        announce,
    )


def split_hashes(
    hashes: bytes, sizes: Mapping[Digest, int], piece_length: int
) -> dict[Digest, bytes]:
    """The piece hashes of each blob of *sizes* bytes, of *hashes* one after the other.

    Raises `InvalidMetainfo` when these are too many or too few.
    """
    split: dict[Digest, bytes] = {}
    start = 0
    for digest, size in sizes.items():
        end = start + hashes_size(size, piece_length)
        split[digest] = hashes[start:end]
        start = end
    if start != len(hashes):
        raise InvalidMetainfo("there are too many or too few piece hashes")
    return split


def with_announce(metainfo: Metainfo, announce: str) -> Metainfo:
    """The same torrent for peers that announce to *announce*."""
    if metainfo.announce == announce:
        return metainfo
    torrent = _read(metainfo.content)
    torrent.metainfo["announce"] = announce
    return replace(metainfo, announce=announce, content=torrent.dump(validate=False))


def parse_metainfo(content: bytes) -> Metainfo:
    """The torrent in *content*, when it is of the form that `image_metainfo` makes.

    Raises `InvalidMetainfo` for all else: no name in a torrent may be a path outside. The result is
    rebuilt from what was parsed: other trackers, web seeds and nodes are left out.
    """
    torrent = _read(content)
    _validate(torrent)
    info = torrent.metainfo["info"]
    if "files" not in info:
        raise InvalidMetainfo("the torrent is a single file, not an image")
    if not info.keys() <= _INFO_KEYS:
        raise InvalidMetainfo("the torrent has more in it than that of an image")
    if not info.get("private"):
        raise InvalidMetainfo("the torrent isn't private: its peers would come from anywhere")
    if info["piece length"] > MAX_PIECE_LENGTH:
        raise InvalidMetainfo(f"the torrent's pieces are longer than {MAX_PIECE_LENGTH} bytes")
    _check_size(_described(torrent, "", content))
    return _metainfo(info, _announce_of(torrent))


def _announce_of(torrent: Any) -> str:
    """The URL of a torrent's tracker. Raises `InvalidMetainfo` when it isn't one."""
    announce = str(torrent.metainfo.get("announce", ""))
    if announce and not _ANNOUNCE.fullmatch(announce):
        raise InvalidMetainfo("the address of the torrent's tracker is no URL")
    return announce


def _check_size(metainfo: Metainfo) -> None:
    if (
        metainfo.piece_count * HASH_SIZE != len(metainfo.all_hashes)
        or sum(file.pieces for file in metainfo.files) != metainfo.piece_count
    ):
        raise InvalidMetainfo("the torrent has too many or too few pieces")


def _metainfo(info: dict[str, Any], announce: str) -> Metainfo:
    torrent: Any = torf.Torrent()
    torrent.metainfo["created by"] = _CREATED_BY
    torrent.metainfo["info"] = info
    if announce:
        torrent.metainfo["announce"] = announce
    _validate(torrent)
    content = torrent.dump(validate=False)
    return _described(torrent, announce, content)


def _validate(torrent: Any) -> None:
    try:
        torrent.validate()
    except torf.TorfError as error:
        raise InvalidMetainfo(f"the torrent is broken: {error}") from error


def _read(content: bytes) -> Any:
    if len(content) > MAX_TORRENT:
        raise InvalidMetainfo(f"the torrent is larger than {MAX_TORRENT} bytes")
    try:
        return torf.Torrent.read_stream(io.BytesIO(content), validate=False)
    except (torf.TorfError, RecursionError, ValueError, OverflowError, MemoryError) as error:
        raise InvalidMetainfo(f"this is no torrent: {error}") from error


def _described(torrent: Any, announce: str, content: bytes) -> Metainfo:
    info = torrent.metainfo["info"]
    name, piece_length = info["name"], int(info["piece length"])
    try:
        Digest.sha256(name)
        files = tuple(_files(info["files"], piece_length))
        # encodes everything again, which fails where keys are no texts
        info_hash = bytes.fromhex(torrent.infohash)
    except (DocketError, KeyError, TypeError, ValueError) as error:
        raise InvalidMetainfo(f"the torrent is not that of an image: {error}") from error
    return Metainfo(
        info_hash=info_hash,
        name=str(name),
        piece_length=piece_length,
        files=files,
        announce=announce,
        content=content,
        all_hashes=bytes(info["pieces"]),
    )


def _files(rows: Sequence[Mapping[str, Any]], piece_length: int) -> Iterator[File]:
    """The files that are no pads; each begins on a piece boundary."""
    offset = 0
    seen: set[str] = set()
    for row in rows:
        length = int(row["length"])
        if length < 0:
            raise InvalidMetainfo("a file has a negative size")
        if not row.keys() <= _FILE_KEYS or row.get("attr", "p") != "p":
            raise InvalidMetainfo("a file is a link, or has other names")
        if "attr" not in row:
            path = "/".join(str(part) for part in row["path"])
            if path.count("/") != len(row["path"]) - 1:
                raise InvalidMetainfo(f"a name within {path[:160]!r} has a slash")
            if path in seen:
                raise InvalidMetainfo(f"{path[:160]} is listed twice")
            if offset % piece_length:
                raise InvalidMetainfo(f"{path[:160]} doesn't begin on a piece boundary")
            seen.add(path)
            pieces = -(-length // piece_length)
            yield File(path, length, _digest_in(path), offset // piece_length, pieces)
        offset += length


def _digest_in(path: str) -> Digest | None:
    """The digest that an image layout's path names; the only paths that a torrent may have."""
    if path in (LAYOUT_FILE, INDEX_FILE):
        return None
    folder, _, path_below = path.partition("/")
    algorithm, _, hexdigits = path_below.partition("/")
    if folder != "blobs":
        raise InvalidMetainfo(f"{path[:160]!r} is no file of an image layout")
    return Digest.parse(f"{algorithm}:{hexdigits}")


def _hashed(content: bytes, piece_length: int) -> bytes:
    hasher = PieceHasher(piece_length)
    hasher.update(content)
    return hasher.finish()
