"""Manifests, indexes and configs as values: what is read, and what is refused (OCI image 1.1)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docket.errors import InvalidManifest, TooLarge
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor, Index, Manifest, Platform

Plain = dict[str, Any]

A, B = Digest.of(b"a"), Digest.of(b"b")


def descriptor(media_type: str = manifest.OCI_LAYER, **more: Any) -> Plain:
    """A descriptor as JSON."""
    return {"mediaType": media_type, "digest": str(A), "size": 1, **more}


def image(**more: Any) -> Plain:
    """An image manifest as JSON, with *more* keys or others."""
    return {
        "schemaVersion": 2,
        "mediaType": manifest.OCI_MANIFEST,
        "config": descriptor(manifest.OCI_CONFIG),
        "layers": [descriptor()],
        **more,
    }


def index(**more: Any) -> Plain:
    """An index as JSON, with *more* keys or others."""
    return {
        "schemaVersion": 2,
        "mediaType": manifest.OCI_INDEX,
        "manifests": [descriptor(manifest.OCI_MANIFEST)],
        **more,
    }


def parsed(plain: Plain, content_type: str = "") -> Manifest | Index:
    """What docket reads in *plain*."""
    return manifest.parse(json.dumps(plain).encode(), content_type=content_type)


DESCRIPTORS = st.builds(
    Descriptor,
    media_type=st.just(manifest.OCI_LAYER),
    digest=st.binary(max_size=4).map(Digest.of),
    size=st.integers(0, 1 << 62),
    annotations=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
    platform=st.none()
    | st.builds(
        Platform,
        os=st.sampled_from(["linux", "windows"]),
        architecture=st.sampled_from(["amd64", "arm64"]),
        variant=st.sampled_from(["", "v8"]),
    ),
)


@given(DESCRIPTORS, st.lists(DESCRIPTORS, max_size=4))
def test_image_manifest_round_trip(config: Descriptor, layers: list[Descriptor]) -> None:
    """OCI image § manifest: what docket writes it reads back, and equal arguments, equal bytes."""
    content = manifest.image_manifest(config, layers)
    parsed = manifest.parse(content, content_type=manifest.OCI_MANIFEST)
    assert isinstance(parsed, Manifest)
    assert (parsed.config, parsed.layers) == (config, tuple(layers))
    assert content == manifest.image_manifest(config, layers)


@given(st.lists(DESCRIPTORS, max_size=4))
def test_index_round_trip(rows: list[Descriptor]) -> None:
    """OCI image § index: what docket writes it reads back."""
    parsed = manifest.parse(manifest.image_index(rows))
    assert isinstance(parsed, Index)
    assert parsed.manifests == tuple(rows)


@given(st.binary(max_size=300) | st.text('{}[]",:012eE-.mediaType', max_size=100).map(str.encode))
def test_any_bytes_are_parsed_or_refused(content: bytes) -> None:
    """Bad input: bytes from outside are a manifest or `InvalidManifest`, nothing else."""
    with pytest.raises(InvalidManifest):
        manifest.parse(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b"\xef\xbb\xbf{}",
        json.dumps(image()).encode("utf-16"),
        json.dumps(image()).encode()[:-1] + b',"x":"\xed\xa0\x80"}',
        b"{} {}",
        b'{"schemaVersion":1}',
        b'{"schemaVersion":2,"schemaVersion":2,"layers":[],"config":{}}',
        b'{"schemaVersion":NaN}',
        b'{"schemaVersion":2,"x":-Infinity}',
        b'{"schemaVersion":2,"x":' + b"9" * 5000 + b"}",
        b'{"schemaVersion":2,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"x":' * 100_000,
    ],
)
def test_bad_json(content: bytes) -> None:
    """Bad input § JSON bombs: duplicate keys, NaN, deep nesting, endless numbers are refused."""
    with pytest.raises(InvalidManifest):
        manifest.parse(content)


def test_a_key_that_stands_twice_deep_inside() -> None:
    """Bad input § JSON bombs: duplicate keys are refused in every object, not the first alone."""
    content = json.dumps(image()).replace('"size": 1', '"size": 1, "size": 2').encode()
    with pytest.raises(InvalidManifest, match="twice"):
        manifest.parse(content)


def test_brackets_in_a_text_are_no_nesting() -> None:
    """Bad input § JSON bombs: only real nesting counts, escapes in texts are understood."""
    read_manifest = parsed(image(annotations={"x": '[{"\\' * 500}))
    assert read_manifest.annotations == {"x": '[{"\\' * 500}


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_half_of_a_surrogate_pair(text: str) -> None:
    """RFC 8259 § 8.2: a text that can't be written as UTF-8 again is refused when it comes in."""
    with pytest.raises(InvalidManifest):
        parsed(image(annotations={"x": text}))
    with pytest.raises(InvalidManifest):
        parsed(image(artifactType=text))
    assert parsed(image(annotations={"x": "\U0001f6a2"})).annotations == {"x": "\U0001f6a2"}


def test_four_mebibytes() -> None:
    """OCI distribution § pushing manifests: 4 MiB are taken; one byte more is `TooLarge`."""
    plain = image(annotations={"x": ""})
    room = manifest.MAX_MANIFEST - len(json.dumps(plain))
    content = json.dumps(image(annotations={"x": "y" * room})).encode()
    assert len(content) == manifest.MAX_MANIFEST
    manifest.parse(content)
    with pytest.raises(TooLarge):
        manifest.parse(content + b" ")


@pytest.mark.parametrize(
    "plain",
    [
        image(manifests=[]),
        image(manifests=[descriptor(manifest.OCI_MANIFEST)]),
        index(layers=[]),
        index(config=descriptor()),
        {**image(), "mediaType": "", "manifests": []},
    ],
)
def test_two_kinds_in_one(plain: Plain) -> None:
    """CVE-2021-41190: never both ``manifests`` and ``layers`` or ``config``."""
    with pytest.raises(InvalidManifest):
        parsed(plain)


@pytest.mark.parametrize(
    ("plain", "content_type"),
    [
        (image(), manifest.OCI_INDEX),
        (image(), manifest.DOCKER_MANIFEST),
        (index(), manifest.OCI_MANIFEST),
        (image(mediaType=""), manifest.OCI_INDEX),
        (image(mediaType="text/plain"), ""),
        (image(mediaType=""), "application/json"),
    ],
)
def test_a_media_type_that_does_not_fit(plain: Plain, content_type: str) -> None:
    """CVE-2021-41190: the mediaType inside equals the Content-Type, and is one docket knows."""
    with pytest.raises(InvalidManifest):
        parsed(plain, content_type)


def test_media_type_from_outside() -> None:
    """OCI image § manifest: mediaType may be missing; then the Content-Type says it."""
    plain = image()
    del plain["mediaType"]
    assert parsed(plain).media_type == manifest.OCI_MANIFEST
    assert parsed(plain, manifest.DOCKER_MANIFEST).media_type == manifest.DOCKER_MANIFEST
    bare = index()
    del bare["mediaType"]
    assert parsed(bare).media_type == manifest.OCI_INDEX


@pytest.mark.parametrize(
    "bad",
    [
        {"size": -1},
        {"size": 1.0},
        {"size": True},
        {"size": "1"},
        {"size": 1 << 63},
        {"size": None},
        {"digest": None},
        {"digest": "sha256:12"},
        {"digest": 5},
        {"mediaType": ""},
        {"mediaType": 7},
        {"annotations": ["x"]},
        {"annotations": {"x": 1}},
        {"artifactType": {}},
    ],
)
def test_bad_descriptors(bad: Plain) -> None:
    """OCI image § descriptor: media type, digest and a size ≥ 0 are required, of their types."""
    for plain in (
        image(config={**descriptor(), **bad}),
        image(layers=[descriptor(), {**descriptor(), **bad}]),
        image(subject={**descriptor(), **bad}),
        index(manifests=[{**descriptor(), **bad}]),
    ):
        with pytest.raises(InvalidManifest):
            parsed(plain)


@pytest.mark.parametrize(
    "plain",
    [
        image(layers=None),
        image(layers={}),
        image(layers=["sha256:"]),
        image(config=None),
        image(schemaVersion=1),
        image(schemaVersion="2"),
        image(annotations="x"),
        index(manifests=None),
        index(manifests=[[]]),
    ],
)
def test_missing_parts(plain: Plain) -> None:
    """OCI image § manifest, § index: config and layers, or manifests, have to be there."""
    with pytest.raises(InvalidManifest):
        parsed(plain)


def test_layers_that_need_not_exist() -> None:
    """OCI image § non-distributable layers: they are no children of a manifest."""
    foreign = descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    kept_out = descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")
    read_manifest = parsed(image(layers=[foreign, kept_out, descriptor()]))
    assert isinstance(read_manifest, Manifest)
    assert [child.media_type for child in read_manifest.children] == [
        manifest.OCI_CONFIG,
        manifest.OCI_LAYER,
    ]


def test_artifact_type_falls_back_to_the_config() -> None:
    """OCI distribution § listing referrers: without artifactType the config's media type is it."""
    assert parsed(image()).artifact_type == manifest.OCI_CONFIG
    assert parsed(image(artifactType="text/x")).artifact_type == "text/x"
    assert parsed(index()).artifact_type == ""
    assert parsed(index(artifactType="text/x")).artifact_type == "text/x"


def test_subject() -> None:
    """OCI image § subject: of manifests and indexes; it needs not exist, so it is no child."""
    for plain in (image(), index()):
        read_manifest = parsed(
            {**plain, "subject": descriptor(manifest.OCI_MANIFEST, digest=str(B))}
        )
        assert read_manifest.subject is not None
        assert read_manifest.subject.digest == B
        assert B not in [child.digest for child in read_manifest.children]


def test_an_empty_platform_is_none() -> None:
    """OCI image § index: a platform without a system or processor says nothing."""
    for platform in ({}, {"os": "", "architecture": ""}, {"os": "linux"}, "linux/amd64"):
        parsed_index = parsed(
            index(manifests=[descriptor(manifest.OCI_MANIFEST, platform=platform)])
        )
        assert isinstance(parsed_index, Index)
        assert parsed_index.manifests[0].platform is None


def test_urls_of_foreign_layers() -> None:
    """OCI image § descriptor: urls are kept and written again; they are a list of texts."""
    content = json.dumps(image(layers=[descriptor(urls=["https://a/b"])])).encode()
    layer = manifest.parse(content)
    assert isinstance(layer, Manifest)
    assert layer.layers[0].urls == ("https://a/b",)
    assert layer.layers[0].to_json()["urls"] == ["https://a/b"]
    for bad in ("https://a/b", [1]):
        with pytest.raises(InvalidManifest):
            parsed(image(layers=[descriptor(urls=bad)]))


def test_config() -> None:
    """OCI image § config: diff_ids and platform are what docket reads of it."""
    plain = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [str(A), str(B)]}}
    parsed = manifest.parse_config(manifest.dump(plain))
    assert parsed.diff_ids == (A, B)
    assert parsed.platform == Platform("linux", "amd64")


@pytest.mark.parametrize(
    "plain", [{}, {"rootfs": []}, {"rootfs": {"diff_ids": "x"}}, {"rootfs": {"diff_ids": ["x"]}}]
)
def test_bad_configs(plain: Plain) -> None:
    """OCI image § config: rootfs.diff_ids is a list of digests."""
    with pytest.raises(InvalidManifest):
        manifest.parse_config(manifest.dump(plain))
