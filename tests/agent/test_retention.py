"""What a host keeps of the images that it fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from docket.agent.host.retention import HostRetention, KeepPolicy, parse_space
from docket.errors import EngineError
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.store import Store
from tests.support.images import image_of, layer_tar

MB = 1_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A host's store, whose pins expire at once."""
    with Store(tmp_path / "store", pin_seconds=0) as opened:
        yield opened


def put(store: Store, repository: str, tag: str, *, size: int = MB) -> tuple[Digest, ...]:
    """An image with one layer of its own; its diff_ids. Later ones were used later."""
    tar = layer_tar(f"{repository}-{tag}", size=size)
    image = image_of([tar], f"{repository}:{tag}")
    layer = store.blobs.put(tar, repository=repository)
    config = store.blobs.put(image.config, repository=repository)
    content = manifest_of(config.digest, config.size, layer.digest, layer.size)
    parsed = manifest.parse(content, content_type=manifest.OCI_MANIFEST)
    store.manifests.put(repository, content, parsed, tags=[tag])
    return manifest.parse_config(image.config).diff_ids


def manifest_of(config: Digest, config_size: int, layer: Digest, size: int) -> bytes:
    """An OCI manifest of one layer."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": manifest.OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": str(config),
                "size": config_size,
            },
            "layers": [{"mediaType": manifest.OCI_LAYER, "digest": str(layer), "size": size}],
        }
    ).encode()


def names(store: Store) -> set[str]:
    """The tags that are left."""
    return {f"{tag.repository}:{tag.tag}" for tag in store.manifests.tagged()}


def swept(
    store: Store, policy: KeepPolicy, *in_use: tuple[Digest, ...], swept_times: int = 1
) -> list[str]:
    """What one look removes."""
    retention = HostRetention(store, policy, lambda: None, in_use=lambda: set(in_use), grace=0)
    try:
        gone: list[str] = []
        for _ in range(swept_times):
            gone += retention.run_once()
        return gone
    finally:
        retention.close()


def test_the_last_releases_of_each_repository_stay(store: Store) -> None:
    """Older ones go with their bytes; a rollback to one that stays moves nothing."""
    for tag in ("1.0", "1.1", "1.2"):
        put(store, "app", tag)
    put(store, "db", "1.0")
    before = store.blobs.total_size()
    assert swept(store, KeepPolicy(releases=2)) == ["app:1.0"]
    assert names(store) == {"app:1.1", "app:1.2", "db:1.0"}
    assert store.blobs.total_size() <= before - MB


def test_what_a_container_uses_stays_however_old(store: Store) -> None:
    """By its layers: engines name images by config or by manifest."""
    used = put(store, "app", "1.0")
    put(store, "app", "1.1")
    put(store, "app", "1.2")
    assert swept(store, KeepPolicy(releases=1), used) == ["app:1.1"]
    assert names(store) == {"app:1.0", "app:1.2"}


def test_a_full_store_loses_what_was_used_longest_ago(store: Store) -> None:
    """Until it fits; the newest release of a repository stays even if it doesn't."""
    put(store, "app", "1.0")
    put(store, "db", "1.0")
    put(store, "db", "1.1")
    put(store, "app", "1.1")
    assert swept(store, KeepPolicy(space=3 * MB + MB // 2)) == ["app:1.0"]
    assert swept(store, KeepPolicy(space=1)) == ["db:1.0"]
    assert names(store) == {"app:1.1", "db:1.1"}


def test_a_release_with_two_tags_is_one(store: Store) -> None:
    """``latest`` and ``1.2`` of the same image stay and go together."""
    put(store, "app", "1.0")
    put(store, "app", "1.1")
    stored = store.manifests.get("app", "1.1")
    store.manifests.put("app", stored.content, stored.parsed, tags=["latest"])
    assert swept(store, KeepPolicy(releases=1)) == ["app:1.0"]
    assert names(store) == {"app:1.1", "app:latest"}


def test_an_engine_that_does_not_answer_costs_no_image(store: Store) -> None:
    """Its containers may use any of them."""

    def fails() -> set[tuple[Digest, ...]]:
        raise EngineError("it hangs")

    put(store, "app", "1.0")
    put(store, "app", "1.1")
    retention = HostRetention(store, KeepPolicy(releases=1), lambda: None, in_use=fails, grace=0)
    try:
        with pytest.raises(EngineError):
            retention.run_once()
    finally:
        retention.close()
    assert names(store) == {"app:1.0", "app:1.1"}


def test_layers_on_their_way_stay(store: Store) -> None:
    """They are in the store before a tag names them."""
    put(store, "app", "1.0")
    store.blobs.put(b"a layer whose image isn't tagged yet", repository="app")
    retention = HostRetention(store, KeepPolicy(releases=1), lambda: None, in_use=set)
    try:
        retention.run_once()
    finally:
        retention.close()
    assert store.blobs.has(Digest.of(b"a layer whose image isn't tagged yet"))


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("20G", KeepPolicy(space=20 * 10**9)),
        ("1.5gb", KeepPolicy(space=1_500_000_000)),
        ("500", KeepPolicy(space=500)),
        ("30%", KeepPolicy(share=0.3)),
    ],
)
def test_space_is_bytes_or_a_part_of_the_disk(text: str, policy: KeepPolicy) -> None:
    """Units are decimal, as everywhere in docket."""
    assert parse_space(text) == policy


@pytest.mark.parametrize("text", ["", "0", "-1", "120%", "0%", "1X", "G", "nan", "inf", "1e999"])
def test_what_is_no_space_is_refused(text: str) -> None:
    """A wrong limit would empty a store."""
    with pytest.raises(ValueError, match="size"):
        parse_space(text)


def test_a_policy_without_limits_removes_nothing(store: Store) -> None:
    """The default."""
    put(store, "app", "1.0")
    put(store, "app", "1.1")
    assert swept(store, KeepPolicy(), swept_times=2) == []
    assert names(store) == {"app:1.0", "app:1.1"}
