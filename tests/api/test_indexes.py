"""Indexes of every shape that tools push: nested, without platforms, attested, of plain blobs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor, Platform
from tests.api.http import Registry, Repository
from tests.store.samples import Image, image

ONE, TWO = image("base", "one", size=30_000), image("base", "two", size=30_000)
CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0"


def listed(pushed: Image, platform: str = "", **annotations: str) -> Descriptor:
    """An index's entry for an image."""
    parsed = Platform.parse(platform) if platform else None
    size = len(pushed.content)
    return Descriptor(manifest.OCI_MANIFEST, pushed.digest, size, annotations, parsed)


def put_index(repo: Repository, tag: str, *entries: Descriptor) -> Descriptor:
    """Push an index; its descriptor."""
    content = manifest.image_index(list(entries))
    answer = repo.put(tag, content, kind=manifest.OCI_INDEX)
    assert answer.status == 201, answer
    return Descriptor(manifest.OCI_INDEX, Digest.of(content), len(content))


def row(repo: Repository, tag: str) -> dict[str, Any]:
    """What ``docket images`` shows of a tag."""
    rows = repo.registry.ask("GET", "/v2/_docket/images", name=repo.name).json["images"]
    (tag_row,) = (row for row in rows if row["tag"] == tag)
    return dict(tag_row)


def put_cache(repo: Repository) -> list[bytes]:
    """BuildKit's cache under ``buildcache``; its blobs."""
    layers = [*ONE.layers, json.dumps({"layers": [], "records": []}).encode()]
    types = [f"{manifest.OCI_LAYER}+zstd"] * len(ONE.layers) + [CACHE_CONFIG]
    for blob in layers:
        repo.upload(blob)
    entries = [
        Descriptor(media_type, Digest.of(blob), len(blob))
        for media_type, blob in zip(types, layers, strict=True)
    ]
    put_index(repo, "buildcache", *entries)
    return layers


def test_a_build_cache(repo: Repository) -> None:
    """BuildKit's default registry cache: an index whose entries are blobs is taken and given back.

    What treats it as an image says in a line that it is none; the registry has no error.
    """
    blobs = put_cache(repo)
    assert len(repo.ask("GET", "manifests/buildcache").json["manifests"]) == len(blobs)
    shown = row(repo, "buildcache")
    assert (shown["size"], shown["platforms"], shown["layers"]) == (sum(map(len, blobs)), [], 0)
    for path in ("torrent", "layers", "pieces"):
        answer = repo.ask("GET", f"_docket/{path}/buildcache")
        assert answer.status == 400
        assert "lists no image, but" in answer.json["errors"][0]["message"]


def test_a_blob_of_a_build_cache_that_is_not_here(repo: Repository) -> None:
    """OCI distribution § pushing manifests: what an index lists must be in the repository."""
    nowhere = Descriptor(CACHE_CONFIG, Digest.of(repo.name.encode()), 3)
    answer = repo.put("x", manifest.image_index([nowhere]), kind=manifest.OCI_INDEX)
    assert answer.refused(404, "MANIFEST_BLOB_UNKNOWN")


@pytest.mark.parametrize("media_type", [manifest.OCI_MANIFEST, manifest.OCI_INDEX])
def test_a_blob_is_no_manifest(repo: Repository, media_type: str) -> None:
    """An entry that is said to be a manifest must have been pushed as one."""
    blob = repo.upload(ONE.content)
    entry = Descriptor(media_type, blob, len(ONE.content))
    answer = repo.put("x", manifest.image_index([entry]), kind=manifest.OCI_INDEX)
    assert answer.refused(404, "MANIFEST_BLOB_UNKNOWN")


def test_gc_keeps_what_a_build_cache_lists(sweeping: Registry) -> None:
    """Decision 12: an index keeps its blobs, and they go when it goes."""
    repo = sweeping.repository("cache")
    blobs = put_cache(repo)

    def collect() -> None:
        headers = {"Content-Type": "application/json"}
        body = b'{"grace": 0}'
        assert sweeping.ask("POST", "/v2/_docket/gc", body=body, headers=headers).status == 200

    def statuses() -> set[int]:
        return {repo.ask("HEAD", f"blobs/{Digest.of(blob)}").status for blob in blobs}

    collect()
    assert statuses() == {200}
    assert repo.ask("DELETE", "manifests/buildcache").status == 202
    collect()
    assert statuses() == {404}


def test_nested_indexes(repo: Repository) -> None:
    """OCI image § index: images, sizes, platforms and torrents are found through them."""
    repo.push(ONE, "one")
    repo.push(TWO, "two")
    inner = put_index(repo, "inner", listed(TWO, "linux/arm64/v8"))
    put_index(repo, "all", listed(ONE, "linux/amd64"), inner)
    shown = row(repo, "all")
    assert shown["platforms"] == ["linux/amd64", "linux/arm64/v8"]
    blobs = {Digest.of(blob): len(blob) for blob in (*ONE.blobs, *TWO.blobs)}
    assert shown["size"] == sum(blobs.values())
    for platform, expected in (("linux/aarch64", TWO), ("linux/x86_64", ONE)):
        answer = repo.ask("GET", "_docket/layers/all", platform=platform)
        assert answer.json["digest"] == str(expected.digest)


def test_attestations_are_left_out(repo: Repository) -> None:
    """BuildKit's attestations are no platform of an image, and add nothing to it."""
    repo.push(ONE, "one")
    repo.push(TWO, "two")
    note = {"vnd.docker.reference.type": "attestation-manifest"}
    put_index(repo, "all", listed(ONE, "linux/amd64"), listed(TWO, "unknown/unknown", **note))
    shown = row(repo, "all")
    assert shown["platforms"] == ["linux/amd64"]
    assert shown["size"] == sum(map(len, ONE.blobs))


def test_entries_without_a_platform(repo: Repository) -> None:
    """An image whose entry says no platform has that of its configuration."""
    repo.push(ONE, "one")
    put_index(repo, "all", listed(ONE))
    assert row(repo, "all")["platforms"] == ["linux/amd64"]
    answer = repo.ask("GET", "_docket/layers/all", platform="linux/amd64/v1")
    assert answer.json["digest"] == str(ONE.digest)
    refused = repo.ask("GET", "_docket/layers/all", platform="linux/s390x")
    assert "it has linux/amd64" in refused.json["errors"][0]["message"]
