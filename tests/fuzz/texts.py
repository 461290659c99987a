"""Small things that come as text: manifests, names, announces, ranges."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace
from typing import Any

from docket.api.responses import wanted_range
from docket.errors import (
    InvalidAddress,
    InvalidAnnounce,
    InvalidDigest,
    InvalidManifest,
    InvalidReference,
    TooLarge,
)
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor, Index, Manifest, Platform
from docket.oci.reference import Reference, parse_repository, parse_target
from docket.remote.address import RegistryAddress
from docket.torrent.tracker.announce import Announce, failure, scraped
from docket.torrent.tracker.peers import Tracker
from docket.torrent.zone import compact
from tests.fuzz.properties import assert_readable, refused_or_fine
from tests.fuzz.target import Target, always
from tests.support.images import tiny_image
from tests.torrent.samples import decoded

_TYPES = ("", manifest.OCI_MANIFEST, manifest.OCI_INDEX, manifest.DOCKER_MANIFEST)


def manifest_seeds() -> list[bytes]:
    """Manifests, indexes and configs, with all their optional parts."""
    image = tiny_image("app", 2)
    files = image.layout("gzip")
    rows = [file for name, file in files.items() if name != "oci-layout"]
    row = json.loads(files["index.json"])["manifests"][0]
    platform = {"os": "linux", "architecture": "arm", "variant": "v7"}
    subject = {"schemaVersion": 2, "subject": row, "annotations": {"a": "\u00e9\\u0000"}}
    return [
        *(row for row in rows if row[:1] == b"{"),
        json.dumps({**subject, "manifests": [{**row, "platform": platform}]}).encode(),
        json.dumps({**subject, "artifactType": "a/b", "config": row, "layers": []}).encode(),
        json.dumps(
            {"schemaVersion": 2, "mediaType": manifest.DOCKER_LIST, "manifests": []}
        ).encode(),
        b'{"rootfs":{"diff_ids":null}}',
        b'{"a":{"b":[1,-2.5e3,"\\ud83d\\ude00"]},"a ":true}',
    ]


def check_manifest(content: bytes) -> None:
    """What is read is of one kind, as it was said to be, and is read alike when written again."""
    with refused_or_fine(InvalidManifest, TooLarge):
        plain = manifest.parse_json(content, "it")
        assert plain == json.loads(content.decode())
        assert _depth(plain) <= 64
        assert manifest.parse_json(manifest.dump(plain), "it") == plain
    with refused_or_fine(InvalidManifest, TooLarge):
        config = manifest.parse_config(content)
        assert all(Digest.parse(str(diff_id)) == diff_id for diff_id in config.diff_ids)
    for media_type in _TYPES:
        with refused_or_fine(InvalidManifest, TooLarge):
            _check_parsed(content, manifest.parse(content, content_type=media_type), media_type)


def _check_parsed(content: bytes, parsed: Manifest | Index, media_type: str) -> None:
    plain = json.loads(content)
    assert not ("manifests" in plain and ("layers" in plain or "config" in plain))
    assert media_type in ("", parsed.media_type)
    assert plain.get("mediaType") in (None, "", parsed.media_type)
    if isinstance(parsed, Manifest):
        written = manifest.image_manifest(parsed.config, list(parsed.layers))
        again = manifest.parse(written)
        assert isinstance(again, Manifest)
        assert list(map(_kept, again.layers)) == list(map(_kept, parsed.layers))
    else:
        again = manifest.parse(manifest.image_index(list(parsed.manifests)))
        assert isinstance(again, Index)
        assert list(map(_kept, again.manifests)) == list(map(_kept, parsed.manifests))


def _kept(descriptor: Descriptor) -> tuple[Any, ...]:
    """What of a descriptor is written."""
    return (
        descriptor.media_type,
        descriptor.digest,
        descriptor.size,
        descriptor.annotations,
        descriptor.platform,
    )


def _depth(plain: Any) -> int:
    inside = plain.values() if isinstance(plain, dict) else plain
    return 1 + max(map(_depth, inside), default=0) if isinstance(plain, dict | list) else 0


_SAFE = re.compile(r"[a-z0-9._/-]{1,255}\Z")


def name_seeds() -> list[bytes]:
    """References, digests, platforms and addresses as people type them."""
    digest = Digest.of(b"x")
    names = ["app", "team/app:1.0", f"app@{digest}", f"a/b-c__d.e/f:v1@{digest}", str(digest)]
    sha512 = str(Digest.of(b"x", algorithm="sha512"))
    return [
        text.encode()
        for text in (*names, sha512, "linux/arm/v7", "http://[::1]:5000", "h:80", "https://h/")
    ]


def check_name(content: bytes) -> None:
    """What is a name is safe in a path and a URL, and is itself again when parsed again."""
    text = content.decode("utf-8", "surrogateescape")
    with refused_or_fine(InvalidReference):
        reference = Reference.parse(text)
        assert Reference.parse(str(reference)) == reference
        assert _is_safe(reference.repository)
        assert parse_target(str(reference.target)) == reference.target
    with refused_or_fine(InvalidReference):
        assert _is_safe(parse_repository(text))
    with refused_or_fine(InvalidReference, InvalidDigest):
        assert str(parse_target(text)) == text
    with refused_or_fine(InvalidDigest):
        digest = Digest.parse(text)
        assert str(digest) == text
        assert re.fullmatch(r"blobs/(sha256|sha512)/[0-9a-f]{64,128}", digest.layout_path)
    with refused_or_fine(InvalidManifest):
        assert str(Platform.parse(text)) == text
    with refused_or_fine(InvalidAddress):
        address = RegistryAddress.parse(text)
        parsed = RegistryAddress.parse(str(address))
        assert replace(parsed, authorization=address.authorization) == address


def _is_safe(repository: str) -> bool:
    parts = repository.split("/")
    return bool(_SAFE.match(repository)) and not {"", ".", ".."} & set(parts)


_ADDRESSES = ("10.0.0.1", "::1", "::ffff:10.0.0.2", "fe80::1%eth0", "testclient", "")


def announce_seeds() -> list[bytes]:
    """Announces and scrapes as clients send them."""
    info_hash = b"%12%34Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A"
    common = b"info_hash=" + info_hash + b"&peer_id=-LT20B0-123456789012&port=6881"
    return [
        common + b"&uploaded=0&downloaded=0&left=0&compact=1&numwant=50&event=started",
        common + b"&left=1024&event=completed&ip=10.1.1.1&key=ABCD&no_peer_id=1",
        common + b"&event=stopped&numwant=0",
        b"info_hash=" + info_hash,
        b"&".join([b"info_hash=" + info_hash] * 70),
    ]


def check_announce(query: bytes) -> None:
    """A report within its bounds, and answers that are short and bencoded."""
    tracker = Tracker(max_peers=3)
    for address in _ADDRESSES:
        try:
            report = Announce.parse(query, address=address)
        except InvalidAnnounce as error:
            assert_readable(error)
            refusal = decoded(failure(str(error)))
            assert set(refusal) == {b"failure reason"}
            continue
        assert len(report.info_hash) == len(report.peer_id) == 20
        assert len(report.compact) in (6, 18)
        assert report.compact[:-2] == compact(address, 1)[:-2]
        assert 0 <= report.wanted <= 50
        assert 0 <= report.left < 10**18
        answer = tracker.announce(report, extra=[("10.9.9.9", 7000)])
        assert {b"interval", b"peers", b"complete", b"incomplete"} <= set(decoded(answer))
        assert len(answer) < 4096
        assert tracker.peers(report.info_hash) <= 3
    answer = tracker.scrape(scraped(query))
    assert len(decoded(answer)[b"files"]) <= 64
    assert len(answer) < 8192


def range_seeds() -> list[bytes]:
    """Range headers, with the size of what they are for."""
    texts = ("0-0", "5-", "-5", "0-99999", "-", "5-1", "-0", "0-1,3-4", "999999999999999999-")
    return [b"%d bytes=%s" % (size, text.encode()) for text in texts for size in (0, 10)]


def check_range(content: bytes) -> None:
    """A part of what is there, or the whole, or nothing that could be given."""
    digits, _, header = content.partition(b" ")
    size = int(digits) if digits.isdigit() and len(digits) < 18 else 10
    with suppress(TypeError):
        start, end = wanted_range(header.decode("latin-1"), size)  # type: ignore[misc]
        assert 0 <= start < end <= size or start == end == size


MANIFEST = Target(
    always(check_manifest),
    manifest_seeds,
    words=(b"{", b"[", b'"mediaType":', b'"manifests":[]', b"\\ud800", b"NaN", b'"size":'),
)
NAME = Target(always(check_name), name_seeds, words=(b"@", b"..", b"//", b"%2e", b"sha512:"))
ANNOUNCE = Target(
    always(check_announce),
    announce_seeds,
    words=(b"&left=", b"%", b"&numwant=", b"=", b"&info_hash=", b"&port=0"),
)
RANGE = Target(always(check_range), range_seeds, words=(b"bytes=", b"-", b","))
