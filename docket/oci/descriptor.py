"""Descriptors: media type, digest and size of something stored (OCI image 1.1 § descriptor)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from docket.oci.digest import Digest
from docket.oci.platform import Platform

_REFERENCE_TYPE = "vnd.docker.reference.type"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What names a blob or manifest; *size* in bytes, *urls* where a foreign layer can be had."""

    media_type: str
    digest: Digest
    size: int
    annotations: dict[str, str] = field(default_factory=dict, hash=False)
    platform: Platform | None = None
    artifact_type: str = ""
    urls: tuple[str, ...] = ()

    @property
    def distributable(self) -> bool:
        """False for layers that a registry needs not have (foreign, non-distributable)."""
        return "nondistributable" not in self.media_type and "foreign" not in self.media_type

    @property
    def is_attestation(self) -> bool:
        """Whether this describes another entry of its index, as BuildKit's attestations do."""
        unknown = self.platform is not None and self.platform.is_unknown
        return unknown or _REFERENCE_TYPE in self.annotations

    def to_json(self) -> dict[str, Any]:
        """The descriptor as OCI spells it, fields in the order that engines write."""
        plain: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.urls:
            plain["urls"] = list(self.urls)
        if self.annotations:
            plain["annotations"] = self.annotations
        if self.platform:
            plain["platform"] = {"architecture": self.platform.architecture, "os": self.platform.os}
            if self.platform.variant:
                plain["platform"]["variant"] = self.platform.variant
        return plain
