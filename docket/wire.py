"""The JSON messages of docket's own HTTP calls, shared by the client, the API and its description.

Sizes are in bytes, times in seconds, digests are texts as `docket.oci.digest.Digest` reads them.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MAX_DIFF_IDS = 4096
"""How many layers one request may name."""

Count = Annotated[int, Meta(ge=0, le=1 << 62)]
Seconds = Annotated[float, Meta(ge=0)]
DigestText = Annotated[str, Meta(extra_json_schema={"$ref": "#/components/schemas/Digest"})]
NameText = Annotated[str, Meta(extra_json_schema={"$ref": "#/components/schemas/Name"})]


class MissingLayersRequest(msgspec.Struct):
    """Which of these diff_ids does the registry lack?"""

    diff_ids: Annotated[list[DigestText], Meta(max_length=MAX_DIFF_IDS)]


class LayerInfo(msgspec.Struct):
    """A stored layer: its blob, and what it unpacks to."""

    diff_id: DigestText
    digest: DigestText
    size: Count
    plain_size: Count
    media_type: str
    encoder: str = ""


class MissingLayers(msgspec.Struct):
    """The layers that are held, and the diff_ids of the others."""

    held: list[LayerInfo]
    missing: list[DigestText] = []


class ImageLayers(msgspec.Struct):
    """What each layer of an image unpacks to, null where that is unknown."""

    layers: list[LayerInfo | None]
    digest: DigestText = ""


class ImageRow(msgspec.Struct):
    """A tagged image; *unique* are the bytes of blobs that no other image has."""

    name: NameText
    tag: str
    digest: DigestText
    media_type: str
    platforms: list[str]
    layers: Count
    size: Count
    unique: Count
    shared: Count
    tagged: Seconds


class ImageList(msgspec.Struct):
    """All tagged images, sorted by name and tag."""

    images: list[ImageRow]


class GcRequest(msgspec.Struct, forbid_unknown_fields=True):
    """How to collect garbage; see `docket.store.Retention`.

    The newest release of a repository always stays: *keep* is at least 1.
    """

    dry_run: bool = False
    grace: Seconds | None = None
    keep: Annotated[int, Meta(ge=1, le=1 << 62)] | None = None
    protect: list[str] = []
    age: Seconds | None = None


class GcReport(msgspec.Struct):
    """What a collection freed, or would free; see `docket.store.GcReport`."""

    dry_run: bool
    tags: list[str]
    manifests: Count
    blobs: Count
    orphans: Count
    leftovers: Count
    freed: Count
    kept_tags: Count
    kept_blobs: Count
    kept: Count
    young_manifests: Count
    young_blobs: Count
    young: Count
    pinned_manifests: Count
    pinned_blobs: Count
    pinned: Count


class FsckRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What to check: *read_data* is the part of the blobs to read, ``n/t``."""

    read_data: str | None = None


class FsckFinding(msgspec.Struct):
    """Something wrong: its *kind*, *what* it is about, and what became of it."""

    kind: str
    what: str
    outcome: str


class FsckReport(msgspec.Struct):
    """What a check looked at, and all that it found."""

    rows: Count
    blobs: Count
    read_blobs: Count
    read: Count
    quarantined: list[DigestText]
    findings: list[FsckFinding]


class FsckLine(msgspec.Struct, omit_defaults=True):
    """One line of a check's response: how many blobs are done, of how many; or how it ended."""

    done: Count
    total: Count
    error: str = ""
    report: FsckReport | None = None


MESSAGES = (
    *(MissingLayersRequest, MissingLayers, LayerInfo, ImageLayers, ImageRow, ImageList),
    *(GcRequest, GcReport, FsckRequest, FsckReport, FsckFinding, FsckLine),
)
"""All of the above, for the OpenAPI description."""
