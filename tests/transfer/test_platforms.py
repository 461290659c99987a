"""Images for several platforms: one torrent a platform, the host's own by default."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import urllib3

from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor, Platform
from docket.oci.reference import Reference
from docket.remote.client import Client
from tests.support.commands import CommandFailed, Commands
from tests.support.images import release

Host = Callable[[str], Commands]

PLATFORMS = ("linux/amd64", "linux/arm64/v8")


@pytest.fixture
def digests(registry_url: str, host: Host, tmp_path: Path) -> dict[str, str]:
    """app:1.0 for two platforms; the digest of each platform's manifest."""
    digests: dict[str, str] = {}
    rows = []
    with Client(registry_url) as client:
        for platform in PLATFORMS:
            name = platform.replace("/", "-")
            image = release(f"app:{name}", [(name, 300_000)])
            archive = image.archive(tmp_path / f"{name}.tar")
            digests[platform] = host("build")("push", image.name, "--archive", archive)["digest"]
            content = client.manifest(Reference.parse(image.name)).content
            rows.append(
                Descriptor(
                    manifest.OCI_MANIFEST,
                    Digest.of(content),
                    len(content),
                    platform=Platform.parse(platform),
                )
            )
        index = manifest.image_index(rows)
        client.put_manifest(Reference.parse("app:1.0"), index, manifest.OCI_INDEX)
    return digests


def test_each_platform_is_pulled_and_has_its_torrent(
    digests: dict[str, str], host: Host, registry_url: str
) -> None:
    """--platform chooses; without it the host's; every platform manifest is a torrent."""
    for platform, digest in digests.items():
        pulled = host(platform.replace("/", "-"))(
            "pull", "app:1.0", "--layers-only", "--platform", platform
        )
        assert pulled["digest"] == digest
        assert {layer["source"] for layer in pulled["layers"]} == {"swarm"}
    own = host("own")("pull", "app:1.0", "--layers-only")["digest"]
    expected = [
        platform for platform in PLATFORMS if Platform.parse(platform).serves(Platform.of_host())
    ]
    assert own == digests[expected[0]]
    hashes = {
        host("a")("inspect", "app:1.0", "--platform", platform)["info_hash"]
        for platform in PLATFORMS
    }
    assert len(hashes) == len(PLATFORMS)
    with urllib3.PoolManager() as pool:
        url = f"{registry_url}/torrents/app:1.0.torrent?platform=linux/arm64"
        answer = pool.request("GET", url)
        assert digests["linux/arm64/v8"].partition(":")[2].encode() in answer.data


def test_images_show_platforms(digests: dict[str, str], host: Host) -> None:
    """docket images names the platforms of an index."""
    rows = {row["tag"]: row for row in host("a")("images", "app")["images"]}
    assert rows["1.0"]["platforms"] == list(PLATFORMS)
    assert json.loads(host("a").plain("--json", "images"))["images"]


def test_platform_that_is_missing_is_named(digests: dict[str, str], host: Host) -> None:
    """An image without the wanted platform says which it has."""
    with pytest.raises(CommandFailed) as caught:
        host("a")("pull", "app:1.0", "--layers-only", "--platform", "linux/s390x")
    assert caught.value.code == 4
    assert "linux/amd64, linux/arm64/v8" in caught.value.message
