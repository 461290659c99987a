"""Manifests, indexes and image configurations as values (OCI image 1.1, Docker schema 2)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from docket.errors import InvalidDigest, InvalidManifest, TooLarge
from docket.oci.descriptor import Descriptor
from docket.oci.digest import Digest
from docket.oci.platform import Platform

__all__ = [
    "ALL_MANIFEST_TYPES",
    "ANNOTATION_ENCODER",
    "CONFIG_TYPES",
    "DOCKER_CONFIG",
    "DOCKER_LIST",
    "DOCKER_MANIFEST",
    "INDEX_TYPES",
    "MANIFEST_TYPES",
    "MAX_MANIFEST",
    "OCI_CONFIG",
    "OCI_EMPTY",
    "OCI_INDEX",
    "OCI_LAYER",
    "OCI_MANIFEST",
    "Descriptor",
    "ImageConfig",
    "Index",
    "Manifest",
    "Platform",
    "dump",
    "image_index",
    "image_manifest",
    "parse",
    "parse_config",
    "parse_json",
]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
ALL_MANIFEST_TYPES = MANIFEST_TYPES | INDEX_TYPES
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})

MAX_MANIFEST = 4 << 20
"""Bytes a manifest may have (OCI distribution 1.1: registries must take 4 MiB)."""

_MAX_NESTING = 64
_MAX_SIZE = 1 << 62

ANNOTATION_ENCODER = "io.github.docket.encoder"
"""Layer annotation: what compressed the layer, e.g. ``zstd/1.5.7 level=3``."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image or artifact manifest."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str
    annotations: dict[str, str]

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """What must be in the repository before this manifest is."""
        return (self.config, *(layer for layer in self.layers if layer.distributable))

    @property
    def is_image(self) -> bool:
        """Whether the config is that of a container image."""
        return self.config.media_type in CONFIG_TYPES


@dataclass(frozen=True, slots=True)
class Index:
    """An image index or manifest list: one manifest a platform."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str
    annotations: dict[str, str]

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """What must be in the repository before this index is; BuildKit's cache lists blobs."""
        return self.manifests


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What docket reads of an image configuration."""

    diff_ids: tuple[Digest, ...]
    platform: Platform | None


def parse_json(content: bytes, what: str) -> dict[str, Any]:
    """The JSON object in *content*: no duplicate keys, nesting ≤ 64, UTF-8, ≤ 4 MiB.

    Raises `InvalidManifest`, or `TooLarge`.
    """
    if len(content) > MAX_MANIFEST:
        raise TooLarge(what, limit=MAX_MANIFEST)
    _check_nesting(content, what)
    try:
        # decoded here: json.loads would take UTF-16 too, and halves of surrogate pairs
        parsed = json.loads(
            content.decode(), object_pairs_hook=_unique_keys, parse_constant=_no_constant
        )
        if b"\\ud" in content.lower():
            dump(parsed)  # half of a surrogate pair can't be written again
    except (ValueError, RecursionError) as error:
        raise InvalidManifest(f"{what} is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise InvalidManifest(f"{what} is not a JSON object")
    return parsed


def parse(content: bytes, *, content_type: str = "") -> Manifest | Index:
    """The manifest or index in *content*.

    *content_type* is what it came with; a ``mediaType`` field must be equal to it, and a document
    may not be both kinds (CVE-2021-41190). Raises `InvalidManifest`, or `TooLarge`.
    """
    plain = parse_json(content, "the manifest")
    own_type = plain.get("mediaType", "")
    if not isinstance(own_type, str):
        raise InvalidManifest("mediaType is not a text")
    if own_type and content_type and own_type != content_type:
        raise InvalidManifest(f"the manifest says it is {own_type} but came as {content_type}")
    media_type = own_type or content_type or _guess_type(plain)
    if plain.get("schemaVersion") != 2:
        raise InvalidManifest("schemaVersion must be 2")
    if media_type in INDEX_TYPES:
        return _parse_index(plain, media_type)
    if media_type in MANIFEST_TYPES:
        return _parse_manifest(plain, media_type)
    raise InvalidManifest(f"docket doesn't know manifests of type {media_type!r}")


def parse_config(content: bytes) -> ImageConfig:
    """The diff_ids and platform in an image configuration. Raises `InvalidManifest`."""
    plain = parse_json(content, "the image configuration")
    rootfs = plain.get("rootfs")
    if not isinstance(rootfs, dict) or not isinstance(rootfs.get("diff_ids") or [], list):
        raise InvalidManifest("the image configuration has no rootfs.diff_ids")
    diff_ids = tuple(_digest(text, "diff_id") for text in rootfs.get("diff_ids") or [])
    return ImageConfig(diff_ids=diff_ids, platform=_platform(plain))


def image_manifest(config: Descriptor, layers: list[Descriptor]) -> bytes:
    """An OCI image manifest of *config* and *layers*; equal arguments give equal bytes."""
    plain = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    return dump(plain)


def image_index(manifests: list[Descriptor]) -> bytes:
    """An OCI index of *manifests*, such as the ``index.json`` of an image layout."""
    plain = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [entry.to_json() for entry in manifests],
    }
    return dump(plain)


def dump(plain: Any) -> bytes:
    """*plain* as compact JSON, keys in the order given, as engines write it."""
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=False).encode()


def _parse_manifest(plain: dict[str, Any], media_type: str) -> Manifest:
    if "manifests" in plain:
        raise InvalidManifest("a manifest may not have both layers and manifests")
    config = _descriptor(plain.get("config"), "config")
    layers = plain.get("layers")
    if not isinstance(layers, list):
        raise InvalidManifest("the manifest has no list of layers")
    return Manifest(
        media_type=media_type,
        config=config,
        layers=tuple(_descriptor(layer, "layer") for layer in layers),
        subject=_subject(plain),
        artifact_type=_text(plain, "artifactType") or config.media_type,
        annotations=_annotations(plain),
    )


def _parse_index(plain: dict[str, Any], media_type: str) -> Index:
    if "layers" in plain or "config" in plain:
        raise InvalidManifest("an index may not have layers or a config")
    manifests = plain.get("manifests")
    if not isinstance(manifests, list):
        raise InvalidManifest("the index has no list of manifests")
    return Index(
        media_type=media_type,
        manifests=tuple(_descriptor(entry, "manifest") for entry in manifests),
        subject=_subject(plain),
        artifact_type=_text(plain, "artifactType"),
        annotations=_annotations(plain),
    )


def _guess_type(plain: dict[str, Any]) -> str:
    return OCI_INDEX if "manifests" in plain else OCI_MANIFEST


def _subject(plain: dict[str, Any]) -> Descriptor | None:
    return _descriptor(plain["subject"], "subject") if plain.get("subject") is not None else None


def _descriptor(plain: Any, what: str) -> Descriptor:
    if not isinstance(plain, dict):
        raise InvalidManifest(f"the {what} is not a descriptor")
    size = plain.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
        raise InvalidManifest(f"the size of the {what} is not a count of bytes")
    media_type = _text(plain, "mediaType")
    if not media_type:
        raise InvalidManifest(f"the {what} has no mediaType")
    return Descriptor(
        media_type=media_type,
        digest=_digest(plain.get("digest"), what),
        size=size,
        annotations=_annotations(plain),
        platform=_platform(plain.get("platform")),
        artifact_type=_text(plain, "artifactType"),
        urls=_urls(plain),
    )


def _digest(text: Any, what: str) -> Digest:
    if not isinstance(text, str):
        raise InvalidManifest(f"the {what} has no digest")
    try:
        return Digest.parse(text)
    except InvalidDigest as error:
        raise InvalidManifest(f"the {what} has a bad digest: {error}") from error


def _text(plain: dict[str, Any], key: str) -> str:
    value = plain.get(key, "")
    if not isinstance(value, str):
        raise InvalidManifest(f"{key} is not a text")
    return value


def _annotations(plain: dict[str, Any]) -> dict[str, str]:
    value = plain.get("annotations") or {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise InvalidManifest("annotations must be texts by name")
    return value


def _urls(plain: dict[str, Any]) -> tuple[str, ...]:
    value = plain.get("urls") or []
    if not isinstance(value, list) or not all(isinstance(url, str) for url in value):
        raise InvalidManifest("urls must be a list of texts")
    return tuple(value)


def _platform(plain: Any) -> Platform | None:
    if not isinstance(plain, dict):
        return None
    os, architecture = plain.get("os"), plain.get("architecture")
    if not isinstance(os, str) or not isinstance(architecture, str) or not os or not architecture:
        return None
    variant = plain.get("variant", "")
    return Platform(os, architecture, variant if isinstance(variant, str) else "")


def _check_nesting(content: bytes, what: str) -> None:
    """Refuse deep nesting before the parser recurses into it; brackets in texts don't count."""
    depth = 0
    in_text = escaped = False
    if content.count(b"[") + content.count(b"{") <= _MAX_NESTING:
        return
    for byte in content:
        if in_text:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_text = False
        elif byte == 0x22:
            in_text = True
        elif byte in b"[{":
            depth += 1
            if depth > _MAX_NESTING:
                raise InvalidManifest(f"{what} nests deeper than {_MAX_NESTING} levels")
        elif byte in b"]}":
            depth -= 1


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return unique


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
