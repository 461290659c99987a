"""The image that a reference names in a registry, for one platform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from docket.errors import InvalidManifest, NotFound, RegistryRefused
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor, Platform
from docket.oci.reference import Reference
from docket.remote.client import Client
from docket.remote.values import RemoteManifest
from docket.store.blobs.unpacking import Unpacked
from docket.torrent.metainfo import parse_metainfo


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """An image as the registry has it, for one platform.

    *unpacked* is what the registry says that layers unpack to: hints, which nothing may rest on.
    *trip_seconds* is how long a message takes to the registry and back.
    """

    reference: Reference
    manifest: RemoteManifest
    config: bytes
    diff_ids: tuple[Digest, ...]
    unpacked: dict[Digest, Unpacked]
    trip_seconds: float = 0.0

    @property
    def digest(self) -> Digest:
        """The manifest's digest."""
        return self.manifest.digest

    @property
    def config_descriptor(self) -> Descriptor:
        """The configuration, as the manifest names it."""
        return self.manifest.image().config

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The layers, base first, as often as the image lists them."""
        return self.manifest.image().layers

    @property
    def at_digest(self) -> Reference:
        """The manifest by its digest: the tag may move."""
        return Reference(self.reference.repository, self.digest)


def resolve(
    client: Client,
    reference: Reference,
    platform: Platform,
    *,
    held: RemoteManifest | None = None,
) -> ResolvedImage:
    """Manifest and config of *reference*, checked. Raises `ManifestUnknown`, `InvalidManifest`.

    The image manifest that is *held* already isn't requested again.
    """
    # before all else: later, layers on their way to hosts may delay it
    trip_seconds = client.trip_seconds()
    remote_manifest = held or client.image_manifest(reference, platform)
    image = remote_manifest.image()
    config = client.read_blob(reference.repository, image.config)
    diff_ids = manifest.parse_config(config).diff_ids
    if len(diff_ids) != len(image.layers):
        raise InvalidManifest(
            f"{reference} has {len(image.layers)} layers but {len(diff_ids)} diff_ids"
        )
    return ResolvedImage(
        reference=reference,
        manifest=remote_manifest,
        config=config,
        diff_ids=diff_ids,
        unpacked=_unpacked(
            client, Reference(reference.repository, remote_manifest.digest), diff_ids
        ),
        trip_seconds=trip_seconds,
    )


def inspect_image(client: Client, reference: Reference, platform: Platform) -> dict[str, Any]:
    """An image's manifest, layers and torrent as plain values; sizes in bytes."""
    image = resolve(client, reference, platform)
    content, _ = client.torrent(image.at_digest)
    torrent = parse_metainfo(content)
    config = manifest.parse_config(image.config)
    return {
        "name": str(reference),
        "digest": str(image.digest),
        "media_type": image.manifest.media_type,
        "config": str(image.config_descriptor.digest),
        "platform": str(config.platform or ""),
        "info_hash": torrent.info_hash.hex(),
        "tracker": torrent.announce,
        "layers": [
            {
                "digest": str(layer.digest),
                "diff_id": str(diff_id),
                "size": layer.size,
                "media_type": layer.media_type,
            }
            for layer, diff_id in zip(image.layers, image.diff_ids, strict=True)
        ],
    }


def _unpacked(
    client: Client, reference: Reference, diff_ids: Sequence[Digest]
) -> dict[Digest, Unpacked]:
    """What the registry knows of the plain layers; nothing, if it isn't a docket."""
    try:
        layers = client.layers(reference, count=len(diff_ids))
    except (NotFound, RegistryRefused):
        return {}
    return {
        layer.descriptor.digest: Unpacked(
            layer.diff_id,
            layer.plain_size,
            layer.descriptor.media_type.removeprefix(manifest.OCI_LAYER).removeprefix("+"),
        )
        for layer, diff_id in zip(layers, diff_ids, strict=False)
        if layer and layer.diff_id == diff_id
    }
