"""Docket's own calls: layers by diff_id, torrents, images, gc, the tracker, health."""

from __future__ import annotations

import json
from itertools import cycle
from typing import Any
from urllib.parse import quote_from_bytes, urlsplit

import pytest

from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor, Platform
from docket.torrent.metainfo import parse_metainfo
from docket.torrent.tracker.peer_selection import OTHER_ZONE, REGISTRY_ZONE
from tests.api.http import Answer, Registry, Repository
from tests.store.samples import ENCODER, Image, image
from tests.torrent.samples import decoded

ONE, TWO = image("base", "one", size=300_000), image("base", "two", size=300_000)


def missing(repo: Repository, *diff_ids: object) -> Answer:
    """Ask which of *diff_ids* the registry lacks."""
    body = json.dumps({"diff_ids": [str(diff_id) for diff_id in diff_ids]}).encode()
    return repo.ask("POST", "_docket/missing", body=body)


def rows(registry: Registry, **query: Any) -> dict[str, dict[str, Any]]:
    """The images by ``name:tag``."""
    answer = registry.ask("GET", "/v2/_docket/images", **query)
    assert answer.status == 200, answer
    return {f"{row['name']}:{row['tag']}": row for row in answer.json["images"]}


def announce(registry: Registry, info_hash: bytes, **more: Any) -> Any:
    """What the tracker answers, decoded."""
    query: dict[str, Any] = {
        "peer_id": "-XX0001-abcdefghijkl",
        "port": 6881,
        "left": 1,
        "compact": 1,
        **more,
    }
    path = f"/announce?info_hash={quote_from_bytes(info_hash)}"
    answer = registry.ask("GET", path, **query)
    assert answer.status == 200
    return decoded(answer.body)


# -- layers by diff_id


def test_missing(repo: Repository, registry: Registry) -> None:
    """Decision 2: what is held comes back with its blob, whichever repository brought it."""
    registry.repository(f"{repo.name}-source").push(ONE)
    unknown = Digest.of(b"unknown" + repo.name.encode())
    diff_ids = [Digest.of(plain) for plain in ONE.plain]
    answer = missing(repo, *diff_ids, unknown, unknown)
    assert answer.status == 200
    assert answer.json["missing"] == [str(unknown)]
    by_diff_id = {row["diff_id"]: row for row in answer.json["held"]}
    assert by_diff_id.keys() == {str(diff_id) for diff_id in diff_ids}
    for plain, layer in zip(ONE.plain, ONE.layers, strict=True):
        assert by_diff_id[str(Digest.of(plain))] == {
            "diff_id": str(Digest.of(plain)),
            "digest": str(Digest.of(layer)),
            "size": len(layer),
            "plain_size": len(plain),
            "media_type": f"{manifest.OCI_LAYER}+zstd",
            "encoder": "",
        }


def test_the_encoder_of_a_held_layer(repo: Repository) -> None:
    """Decision 11: a repository's own manifests say what compressed a layer."""
    repo.push(ONE)
    answer = missing(repo, *map(Digest.of, ONE.plain))
    assert [row["encoder"] for row in answer.json["held"]] == [ENCODER] * len(ONE.plain)


def test_what_is_held_is_mounted(repo: Repository, registry: Registry) -> None:
    """Decision 2: after the answer a manifest of this repository may list the held layers."""
    registry.repository(f"{repo.name}-source").push(ONE)
    missing(repo, *map(Digest.of, ONE.plain))
    repo.upload(ONE.config)
    assert repo.put("v1", ONE.content).status == 201


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "UNSUPPORTED"),
        (b"{}", "UNSUPPORTED"),
        (b"[]", "UNSUPPORTED"),
        (b'{"diff_ids":5}', "UNSUPPORTED"),
        (b'{"diff_ids":["\xff"]}', "UNSUPPORTED"),
        (b'{"diff_ids":' + b"[" * 100_000, "UNSUPPORTED"),
        (b'{"diff_ids":["x"]}', "DIGEST_INVALID"),
        (json.dumps({"diff_ids": [str(ONE.digest)] * 4097}).encode(), "UNSUPPORTED"),
    ],
)
def test_questions_that_are_none(repo: Repository, body: bytes, code: str) -> None:
    """Bad input: a question is JSON with at most 4096 digests."""
    assert repo.ask("POST", "_docket/missing", body=body).refused(400, code)


def test_a_question_that_is_too_long(repo: Repository) -> None:
    """Bad input § JSON bombs: the body is bounded."""
    answer = repo.ask("POST", "_docket/missing", body=b" " * ((1 << 20) + 1))
    assert answer.refused(413, "SIZE_INVALID")


def test_layers(repo: Repository) -> None:
    """Decision 11: what each layer of an image unpacks to is cheap to ask for."""
    repo.push(ONE, "v1")
    answer = repo.ask("GET", "_docket/layers/v1")
    assert answer.json["digest"] == str(ONE.digest)
    layer_digests = [(row["diff_id"], row["digest"]) for row in answer.json["layers"]]
    assert layer_digests == [
        (str(Digest.of(plain)), str(Digest.of(layer)))
        for plain, layer in zip(ONE.plain, ONE.layers, strict=True)
    ]
    assert repo.ask("GET", "_docket/layers/v2").refused(404, "MANIFEST_UNKNOWN")


def test_layers_of_a_platform(repo: Repository) -> None:
    """OCI image § index: of an index it is the image for the platform asked for."""
    put_index(repo)
    for name, pushed_image in (("linux/amd64", ONE), ("linux/arm64", TWO)):
        answer = repo.ask("GET", "_docket/layers/all", platform=name)
        assert answer.json["digest"] == str(pushed_image.digest)
    assert repo.ask("GET", "_docket/layers/all", platform="plan9/mips").status == 400


def put_index(repo: Repository) -> bytes:
    """An index of both images under the tag ``all``."""
    platforms = {"amd64": ONE, "arm64": TWO}
    described = []
    for name, pushed_image in platforms.items():
        repo.push(pushed_image, f"only-{name}")
        described.append(
            Descriptor(
                manifest.OCI_MANIFEST,
                pushed_image.digest,
                len(pushed_image.content),
                platform=Platform("linux", name),
            )
        )
    content = manifest.image_index(described)
    assert repo.put("all", content, kind=manifest.OCI_INDEX).status == 201
    return content


# -- torrents


def test_torrent(repo: Repository) -> None:
    """Decision 4: the torrent of an image is an OCI layout; its tracker is this very registry."""
    repo.push(ONE, "v1")
    answer = repo.ask("GET", "_docket/torrent/v1")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/x-bittorrent"
    assert answer.headers["Docker-Content-Digest"] == str(ONE.digest)
    torrent = parse_metainfo(answer.body)
    assert torrent.name == ONE.digest.hex
    assert torrent.announce == f"{repo.registry.url}/announce"
    names = {file.digest for file in torrent.files if file.digest}
    assert names == {Digest.of(blob) for blob in (*ONE.blobs, ONE.content)}


def test_the_same_torrent_by_any_name(repo: Repository, registry: Registry) -> None:
    """Decision 4: tag, digest, repository and the friendly name all lead to one swarm."""
    repo.push(ONE, "v1")
    second_repo = registry.repository(f"{repo.name}-2")
    second_repo.push(ONE, "v2")
    answers = [
        repo.ask("GET", "_docket/torrent/v1"),
        repo.ask("GET", f"_docket/torrent/{ONE.digest}"),
        second_repo.ask("GET", "_docket/torrent/v2"),
        registry.ask("GET", f"/torrents/{repo.name}:v1.torrent"),
        registry.ask("GET", f"/torrents/{second_repo.name}:v2.torrent"),
    ]
    assert len({parse_metainfo(answer.body).info_hash for answer in answers}) == 1


@pytest.mark.parametrize("path", ["{name}:v9.torrent", "Upper:v1.torrent", "{name}:.torrent"])
def test_torrents_that_are_not_there(repo: Repository, path: str) -> None:
    """Unknown images have no torrent, and bad names are no paths."""
    answer = repo.registry.ask("GET", "/torrents/" + path.format(name=repo.name))
    assert answer.status in (400, 404)
    assert answer.json["errors"]
    assert repo.ask("GET", "_docket/torrent/v9").refused(404, "MANIFEST_UNKNOWN")


def test_the_torrent_of_a_platform(repo: Repository) -> None:
    """Decision 4: one torrent per image manifest; an index has one per platform."""
    put_index(repo)
    answer = repo.ask("GET", "_docket/torrent/all", platform="linux/arm64")
    assert parse_metainfo(answer.body).name == TWO.digest.hex


def invited(repo: Repository, method: str = "GET", call: str = "torrent", **query: str) -> bool:
    """Whether who asks so for the torrent is to be a gateway."""
    answer = repo.ask(method, f"_docket/{call}/v1", **query)
    assert answer.status == 200
    return {"yes": True, "no": False}[answer.headers["Docket-Gateway"]]


def test_hosts_that_join_are_invited_to_be_gates(sweeping: Registry) -> None:
    """Decision 23: as many as a zone has; one that asks again has its place, and takes no other."""
    repo = sweeping.repository("app")
    repo.push(ONE, "v1")
    calls = cycle(["torrent", "pieces"])
    near = [
        invited(repo, call=next(calls), join_token=f"host{number}")
        for number in range(REGISTRY_ZONE.first + 1)
    ]
    assert near == [True] * REGISTRY_ZONE.first + [False]
    assert [invited(repo, join_token=token) for token in ("host0", "another")] == [True, False]
    far = [
        invited(repo, join_token=f"host{number}", zone="far")
        for number in range(OTHER_ZONE.first + 1)
    ]
    assert far == [True] * OTHER_ZONE.first + [False]


def test_who_only_looks_takes_no_place_of_a_gate(sweeping: Registry) -> None:
    """Decision 23: HEAD, and a GET of a torrent by whoever doesn't say that it joins."""
    repo = sweeping.repository("app")
    repo.push(ONE, "v1")
    looks = [
        invited(repo, *options)
        for options in (("GET",), ("HEAD",))
        for _ in range(REGISTRY_ZONE.first)
    ]
    assert not any(looks)
    assert not any(
        invited(repo, "HEAD", join_token=f"host{number}") for number in range(REGISTRY_ZONE.first)
    )
    assert all(invited(repo, join_token=f"host{number}") for number in range(REGISTRY_ZONE.first))


# -- images


def test_images(sweeping: Registry) -> None:
    """Stored sizes: what an image has alone, and what it shares with others."""
    sweeping.repository("app").push(ONE, "v1")
    own = sum(map(len, ONE.blobs))
    row = rows(sweeping)["app:v1"]
    assert (row["size"], row["unique"], row["shared"]) == (own, own, 0)
    assert row["digest"] == str(ONE.digest)
    assert (row["layers"], row["platforms"]) == (2, ["linux/amd64"])
    sweeping.repository("app").push(ONE, "same")
    assert rows(sweeping)["app:v1"]["shared"] == 0, "another tag is not another image"
    sweeping.repository("other").push(TWO, "v2")
    base = len(ONE.layers[0])
    for name, pushed_image in (("app:v1", ONE), ("other:v2", TWO)):
        row = rows(sweeping)[name]
        size = sum(map(len, pushed_image.blobs))
        assert (row["size"], row["unique"], row["shared"]) == (size, size - base, base)
    assert list(rows(sweeping, name="other")) == ["other:v2"]


def test_images_of_all_kinds(sweeping: Registry) -> None:
    """One image that is odd or not whole doesn't hide the others."""
    repo = sweeping.repository("app")
    put_index(repo)
    assert rows(sweeping)["app:all"]["platforms"] == ["linux/amd64", "linux/arm64"]
    odd = sweeping.repository("odd")
    odd.upload(b"no config")
    described = Descriptor(manifest.OCI_CONFIG, Digest.of(b"no config"), 9)
    assert odd.put("v1", manifest.image_manifest(described, [])).status == 201
    repo.ask("DELETE", f"manifests/{TWO.digest}")
    assert "app:only-amd64" in rows(sweeping)


# -- gc


def test_gc(sweeping: Registry) -> None:
    """Invariant 3: a dry run tells what gc does; a deleted image's bytes are given back."""
    repo = sweeping.repository("app")
    repo.push(ONE, "v1")
    repo.push(TWO, "v2")
    repo.ask("DELETE", "manifests/v1")
    own = sum(map(len, (ONE.layers[1], ONE.config, ONE.content)))

    def collect(*, dry_run: bool) -> Any:
        body = json.dumps({"dry_run": dry_run, "grace": 0}).encode()
        answer = sweeping.ask("POST", "/v2/_docket/gc", body=body)
        assert answer.status == 200
        return answer.json

    before = sweeping.files()
    promised = collect(dry_run=True)
    assert (promised["blobs"], promised["freed"]) == (3, own)
    assert sweeping.files() == before
    assert collect(dry_run=False) == {**promised, "dry_run": False}
    assert len(before - sweeping.files()) == 3
    assert repo.ask("GET", f"manifests/{ONE.digest}").refused(404, "MANIFEST_UNKNOWN")
    assert repo.ask("GET", f"blobs/{Digest.of(TWO.layers[0])}").status == 200
    assert collect(dry_run=False)["blobs"] == 0


def test_gc_after_a_start(repo: Repository, registry: Registry) -> None:
    """Invariant 3: after a start nothing is swept for one pin lifetime."""
    repo.upload(b"garbage" + repo.name.encode())
    answer = registry.ask("POST", "/v2/_docket/gc", body=b'{"grace":0}')
    assert answer.json["blobs"] == 0
    assert answer.json["pinned_blobs"] > 0
    assert registry.ask("POST", "/v2/_docket/gc").status == 200, "a body is optional"


@pytest.mark.parametrize("body", [b"x", b"[]", b'{"grace":"x"}', b'{"dry_run":1}', b"[" * 60_000])
def test_gc_requests_that_are_none(registry: Registry, body: bytes) -> None:
    """Bad input: what isn't the call's JSON is 400."""
    assert registry.ask("POST", "/v2/_docket/gc", body=body).refused(400, "UNSUPPORTED")


def test_an_fsck_request_with_a_bad_part(registry: Registry) -> None:
    """Errors name what is wrong: a part of the blobs is not an image name."""
    answer = registry.ask("POST", "/v2/_docket/fsck", body=b'{"read_data":"9/7"}')
    assert answer.refused(400, "UNSUPPORTED")
    assert "image name" not in answer.json["errors"][0]["message"]


# -- health


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health(registry: Registry, path: str) -> None:
    """Probes are answered with 200."""
    answer = registry.ask("GET", path)
    assert (answer.status, answer.body) == (200, b"ok\n")


def test_metrics(registry: Registry) -> None:
    """Prometheus reads /metrics."""
    answer = registry.ask("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert b"# TYPE " in answer.body


# -- the tracker


def info_hash_of(repo: Repository, pushed: Image) -> bytes:
    """Push an image; the info-hash of its torrent."""
    repo.push(pushed, "v1")
    return parse_metainfo(repo.ask("GET", "_docket/torrent/v1").body).info_hash


def test_announce(repo: Repository, registry: Registry) -> None:
    """BEP 3, BEP 23: a peer is told of the registry's own seed, in six bytes."""
    info_hash = info_hash_of(repo, image("announced", size=100))
    answer = announce(registry, info_hash, event="started")
    assert b"failure reason" not in answer
    assert answer[b"interval"] > 0
    peers = [answer[b"peers"][at : at + 6] for at in range(0, len(answer[b"peers"]), 6)]
    host = urlsplit(registry.url).hostname
    assert [".".join(map(str, peer[:4])) for peer in peers] == [host]
    again = announce(registry, info_hash, peer_id="-XX0001-another-peer", port=6882)
    assert bytes([127, 0, 0, 1]) + (6881).to_bytes(2, "big") in again[b"peers"]


def test_announce_of_an_unknown_torrent(registry: Registry) -> None:
    """Bad input § tracker abuse: only the registry's own torrents are tracked."""
    answer = announce(registry, b"\x00" * 20)
    assert b"failure reason" in answer
    assert b"peers" not in answer


@pytest.mark.parametrize(
    "query",
    [
        "",
        "info_hash=x",
        "info_hash=" + "%00" * 20,
        "info_hash=" + "%00" * 20 + "&peer_id=" + "a" * 20 + "&port=0",
        "info_hash=" + "%00" * 20 + "&peer_id=" + "a" * 20 + "&port=" + "9" * 1000,
        "x" * 5000,
    ],
)
def test_announces_that_are_none(registry: Registry, query: str) -> None:
    """BEP 3: a request that isn't one gets a failure reason, never an error of the server."""
    answer = registry.ask("GET", f"/announce?{query}")
    assert answer.status == 200
    assert b"failure reason" in decoded(answer.body)


def test_an_address_that_is_claimed(repo: Repository, registry: Registry) -> None:
    """Bad input § tracker abuse: ``ip=`` is ignored; the peer is where it connects from."""
    info_hash = info_hash_of(repo, image("claimed", size=100))
    announce(registry, info_hash, ip="8.8.8.8", port=7001)
    answer = announce(registry, info_hash, peer_id="-XX0001-another-peer", port=7002)
    assert bytes([8, 8, 8, 8]) not in answer[b"peers"]
    assert bytes([127, 0, 0, 1]) + (7001).to_bytes(2, "big") in answer[b"peers"]


def test_scrape(repo: Repository, registry: Registry) -> None:
    """BEP 48: seeds and leeches of each torrent; unknown ones are left out."""
    info_hash = info_hash_of(repo, image("scraped", size=100))
    announce(registry, info_hash)
    path = (
        f"/scrape?info_hash={quote_from_bytes(info_hash)}&info_hash={quote_from_bytes(bytes(20))}"
    )
    answer = registry.ask("GET", path)
    files = decoded(answer.body)[b"files"]
    assert list(files) == [info_hash]
    assert files[info_hash][b"incomplete"] == 1


def test_a_torrent_whose_image_went(sweeping: Registry) -> None:
    """Bad input § tracker abuse: once the image is deleted its torrent is unknown."""
    repo = sweeping.repository("app")
    info_hash = info_hash_of(repo, ONE)
    repo.ask("DELETE", f"manifests/{ONE.digest}")
    sweeping.ask("POST", "/v2/_docket/gc", body=b'{"grace":0}')
    assert b"failure reason" in announce(sweeping, info_hash)
