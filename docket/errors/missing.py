"""Errors of what is not here: images, blobs, uploads, deploys, hosts."""

from __future__ import annotations

from collections.abc import Sequence

from docket.errors.base import DocketError


class NotFound(DocketError):
    """No such thing is here."""


class BlobUnknown(NotFound):
    """No such blob in this repository."""

    def __init__(self, digest: object) -> None:
        self.digest = digest
        super().__init__(f"blob {digest} is not here")


class BlobDamaged(BlobUnknown):
    """The blob's file has rotted: it is in quarantine until a push brings it again."""

    def __init__(self, digest: object) -> None:
        super().__init__(digest)
        text = (
            f"blob {digest} was damaged and is in quarantine; push its image again, and run "
            "docket fsck --read-data to find what else is"
        )
        self.args = (text,)


class ManifestUnknown(NotFound):
    """No such manifest or tag in this repository."""

    def __init__(self, reference: object) -> None:
        self.reference = reference
        super().__init__(f"image {reference} is not here")


class ManifestBlobUnknown(NotFound):
    """A manifest names a blob or manifest that this repository doesn't have."""

    def __init__(self, digest: object) -> None:
        self.digest = digest
        super().__init__(
            f"the manifest names {digest}, which is not in this repository; push it first"
        )


class LayerElsewhere(NotFound):
    """A layer that the registry doesn't have, since it may not be redistributed."""

    def __init__(self, reference: object, digest: object, urls: Sequence[str]) -> None:
        self.digest = digest
        self.urls = urls
        where = f" but at {urls[0][:200]}" if urls else ""
        super().__init__(
            f"layer {digest} of {reference} is not in the registry{where}; docket fetches no "
            "layers from other servers: push it there, or load the base image into the engine first"
        )


class RepositoryUnknown(NotFound):
    """No such repository."""

    def __init__(self, repository: str) -> None:
        self.repository = repository
        super().__init__(f"repository {repository} is not here")


class UploadUnknown(NotFound):
    """No such upload session in this repository."""

    def __init__(self, upload: object) -> None:
        super().__init__(f"upload {upload} is not open; begin again")


class DeployUnknown(NotFound):
    """The registry knows no deploy with this id; old ones are forgotten."""

    def __init__(self, deploy_id: str) -> None:
        self.deploy_id = deploy_id
        super().__init__(f"deploy {deploy_id[:40]!r} is not known; docket deploys lists them")


class HostUnknown(NotFound):
    """The registry knows no connected agent with this id: it has to connect first."""

    def __init__(self, host_id: str) -> None:
        self.host_id = host_id
        super().__init__(f"agent {host_id[:8]!r} is not connected to this registry")


class ImageNotInArchive(NotFound):
    """The archive holds other images than the requested one."""

    def __init__(self, name: str, names: list[str]) -> None:
        self.names = names
        super().__init__(
            f"{name} is not in the archive; it holds {', '.join(names)}; choose one with --image"
        )
