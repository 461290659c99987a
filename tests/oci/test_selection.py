"""Choosing an image of an index: every shape of index that tools push."""

from __future__ import annotations

from typing import Any

import pytest

from docket.errors import InvalidManifest, ManifestUnknown
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor, Index, Platform, dump
from docket.oci.selection import choose_image, config_platform, image_manifests


class Blobs:
    """What a registry holds; counts what is read."""

    def __init__(self) -> None:
        self._content: dict[Digest, bytes] = {}
        self.reads = 0

    def put(self, media_type: str, content: bytes, platform: str = "", **more: Any) -> Descriptor:
        """Hold *content*; its descriptor, with a platform if one is given."""
        digest = Digest.of(content)
        self._content[digest] = content
        listed = Platform.parse(platform) if platform else None
        return Descriptor(media_type, digest, len(content), platform=listed, **more)

    def image(self, runs_on: str, *, listed_as: str = "", seed: str = "") -> Descriptor:
        """An image whose configuration says *runs_on*, listed with a platform or without."""
        parts = dict(zip(("os", "architecture", "variant"), runs_on.split("/"), strict=False))
        config = self.put(manifest.OCI_CONFIG, dump({**parts, "rootfs": {"x": seed}}))
        return self.put(manifest.OCI_MANIFEST, manifest.image_manifest(config, []), listed_as)

    def index(self, *entries: Descriptor, platform: str = "") -> Descriptor:
        """An index of *entries*."""
        return self.put(manifest.OCI_INDEX, manifest.image_index(list(entries)), platform)

    def read(self, listed: Descriptor) -> bytes:
        """The bytes of what an index lists."""
        self.reads += 1
        if listed.digest not in self._content:
            raise ManifestUnknown(listed.digest)
        return self._content[listed.digest]

    def choose(self, index: Descriptor, wanted: str) -> Digest:
        """The digest of the image that *index* has for *wanted*."""
        parsed = manifest.parse(self._content[index.digest])
        assert isinstance(parsed, Index)
        return choose_image(parsed, Platform.parse(wanted), self.read).digest

    def listed(self, index: Descriptor) -> list[Digest]:
        """The images that *index* lists."""
        parsed = manifest.parse(self._content[index.digest])
        assert isinstance(parsed, Index)
        return [image.digest for image in image_manifests(parsed, self.read)]


@pytest.fixture
def blobs() -> Blobs:
    """A registry that holds nothing yet."""
    return Blobs()


def both(blobs: Blobs, runs_on: str, seed: str = "") -> Descriptor:
    """An image that is listed as what its configuration says."""
    return blobs.image(runs_on, listed_as=runs_on, seed=seed)


def test_the_best_variant_is_taken_wherever_it_stands(blobs: Blobs) -> None:
    """containerd § platforms.Only: an arm/v7 host takes v7, then v6, then v5."""
    images = {name: both(blobs, f"linux/arm/{name}") for name in ("v5", "v6", "v7")}
    index = blobs.index(*images.values())
    assert blobs.choose(index, "linux/arm/v7") == images["v7"].digest
    assert blobs.choose(index, "linux/arm") == images["v7"].digest
    assert blobs.choose(index, "linux/arm/v6") == images["v6"].digest
    assert blobs.choose(blobs.index(images["v5"], images["v6"]), "armhf") == images["v6"].digest


def test_of_equal_platforms_the_first_is_taken(blobs: Blobs) -> None:
    """Engines take the first that fits, such as of several versions of Windows."""
    first, second = (both(blobs, "windows/amd64", seed) for seed in "ab")
    assert blobs.choose(blobs.index(first, second), "windows/amd64") == first.digest


def test_entries_without_a_platform_are_chosen_by_their_config(blobs: Blobs) -> None:
    """OCI image § index: a platform may be missing; ``podman manifest add`` of some tools."""
    here, foreign = blobs.image("linux/amd64"), blobs.image("linux/arm64/v8")
    index = blobs.index(here, foreign)
    assert blobs.choose(index, "linux/aarch64") == foreign.digest
    assert blobs.choose(index, "linux/x86_64") == here.digest
    with pytest.raises(InvalidManifest, match="it has linux/amd64, linux/arm64/v8"):
        blobs.choose(index, "linux/s390x")


def test_an_entry_that_says_its_platform_comes_first(blobs: Blobs) -> None:
    """No configuration is read where an entry says that it fits."""
    silent, labelled = blobs.image("linux/amd64"), both(blobs, "linux/amd64", "labelled")
    assert blobs.choose(blobs.index(silent, labelled), "linux/amd64") == labelled.digest
    assert blobs.reads == 0


def test_nested_indexes(blobs: Blobs) -> None:
    """OCI image § index: an index may list indexes; an image is chosen through them."""
    images = [both(blobs, name) for name in ("linux/amd64", "linux/arm64", "linux/s390x")]
    deepest = blobs.index(images[2])
    index = blobs.index(images[0], blobs.index(images[1], deepest))
    for image, name in zip(images, ("amd64", "arm64", "s390x"), strict=True):
        assert blobs.choose(index, f"linux/{name}") == image.digest
    assert blobs.listed(index) == [image.digest for image in images]


def test_a_nested_index_for_another_platform_is_not_read(blobs: Blobs) -> None:
    """An index that says its platform is entered for that alone."""
    arm, intel = both(blobs, "linux/arm64"), both(blobs, "linux/amd64")
    index = blobs.index(
        blobs.index(arm, platform="linux/arm64"), blobs.index(intel, platform="linux/amd64")
    )
    assert blobs.choose(index, "linux/amd64") == intel.digest
    assert blobs.reads == 1


def test_attestations_are_no_images(blobs: Blobs) -> None:
    """BuildKit: unknown/unknown and ``vnd.docker.reference.type`` are neither chosen nor listed."""
    image = both(blobs, "linux/amd64")
    provenance = blobs.image("linux/amd64", listed_as="unknown/unknown", seed="provenance")
    content = blobs.read(blobs.image("linux/amd64", seed="annotated"))
    note = {"vnd.docker.reference.type": "attestation-manifest"}
    annotated = blobs.put(manifest.OCI_MANIFEST, content, annotations=note)
    index = blobs.index(provenance, annotated, image)
    assert blobs.listed(index) == [image.digest]
    assert blobs.choose(index, "linux/amd64") == image.digest
    with pytest.raises(InvalidManifest, match="lists no image"):
        blobs.choose(blobs.index(provenance, annotated), "linux/amd64")


def test_a_build_cache_is_no_image(blobs: Blobs) -> None:
    """BuildKit's registry cache lists layers: the error says what is there instead of images."""
    layer = blobs.put(f"{manifest.OCI_LAYER}+gzip", b"layer")
    config = blobs.put("application/vnd.buildkit.cacheconfig.v0", b"{}")
    index = blobs.index(layer, config)
    assert blobs.listed(index) == []
    with pytest.raises(InvalidManifest, match=r"lists no image, but .*buildkit\.cacheconfig"):
        blobs.choose(index, "linux/amd64")


def test_artifacts_beside_images(blobs: Blobs) -> None:
    """A manifest without a platform whose config is no image's (a chart, an SBOM) is not chosen."""
    chart = blobs.put("application/vnd.cncf.helm.config.v1+json", dump({"name": "chart"}))
    artifact = blobs.put(manifest.OCI_MANIFEST, manifest.image_manifest(chart, []))
    image = blobs.image("linux/amd64")
    assert blobs.choose(blobs.index(artifact, image), "linux/amd64") == image.digest
    assert config_platform(artifact, blobs.read) is None


def test_what_an_index_lists_may_be_gone(blobs: Blobs) -> None:
    """A manifest that was deleted, or never copied, doesn't hide the others."""
    image = blobs.image("linux/amd64")
    gone = Descriptor(manifest.OCI_MANIFEST, Digest.of(b"gone"), 4)
    index = blobs.index(gone, Descriptor(manifest.OCI_INDEX, Digest.of(b"x"), 1), image)
    assert blobs.choose(index, "linux/amd64") == image.digest


def test_an_index_that_lists_itself_many_times(blobs: Blobs) -> None:
    """Bad input: each nested index and each image counts once, and depth is bounded."""
    image = both(blobs, "linux/amd64")
    index = blobs.index(*[image] * 50)
    for _ in range(12):
        index = blobs.index(*[index] * 50)
    assert blobs.listed(index) == []
    assert blobs.reads <= 5
    shallow = blobs.index(*[blobs.index(*[image] * 50)] * 50)
    assert blobs.listed(shallow) == [image.digest]


def test_many_entries_without_a_platform(blobs: Blobs) -> None:
    """Bad input: no more than 100 configurations are read for one choice."""
    images = [blobs.image("linux/arm64", seed=str(number)) for number in range(200)]
    index = blobs.index(*images)
    blobs.reads = 0
    with pytest.raises(InvalidManifest, match="it has linux/arm64"):
        blobs.choose(index, "linux/amd64")
    assert blobs.reads <= 400
