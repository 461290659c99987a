"""The JSON messages of docket's own HTTP calls, shared by the client, the API and its description.

Sizes are in bytes, times in seconds, digests are texts as `docket.oci.digest.Digest` reads them.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

FETCHING = "FETCHING"
"""The code of an error: layers are on their way to the registry, and the call is to be repeated."""

MAX_DIFF_IDS = 4096
"""How many layers one request may name."""

Count = Annotated[int, Meta(ge=0, le=1 << 62)]
Seconds = Annotated[float, Meta(ge=0)]
DigestText = Annotated[str, Meta(extra_json_schema={"$ref": "#/components/schemas/Digest"})]
MAX_LABELS = 64
MAX_HELD = 4096
"""Images that an agent names as held."""

MAX_HOSTS = 20_000
"""Hosts that a deploy may name."""

ShortText = Annotated[str, Meta(max_length=255)]
AgentId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
Reason = Annotated[str, Meta(max_length=500)]
Labels = Annotated[dict[str, ShortText], Meta(max_length=MAX_LABELS)]
LongSeconds = Annotated[float, Meta(ge=0, le=10_000_000)]
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
    unused: Seconds | None = None


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


class HostInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says of its host when it connects, and again when that changes.

    *id* is random and kept with the host's store. *held* are digests of image manifests.
    *disk_free* (of the file system) and *disk_used* (by docket's store) are bytes.
    """

    id: AgentId
    name: ShortText
    zone: ShortText = ""
    labels: Labels = {}
    version: ShortText = ""
    engine: ShortText = ""
    platform: ShortText = ""
    held: Annotated[list[ShortText], Meta(max_length=MAX_HELD)] = []
    disk_free: Count = 0
    disk_used: Count = 0


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the stream to an agent.

    *action* is ``fetch`` (the image *repository*@*digest*, for *deploy*), ``cancel`` (*deploy*) or
    ``ping``. The agent waits up to *jitter* seconds before it starts, and reports progress every
    *report_seconds*. About *hosts* hosts fetch the image at the same time. *max_download* is in
    bytes a second; 0 is no limit.
    """

    action: str
    deploy: str = ""
    repository: str = ""
    tag: str = ""
    digest: str = ""
    load: bool = False
    jitter: float = 0.0
    report_seconds: float = 1.0
    hosts: int = 0
    max_download: int = 0


class HostReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far one host is with one deploy; bytes of layers, *rate* in bytes a second."""

    deploy: ShortText
    state: ShortText
    total: Count = 0
    done: Count = 0
    rate: Count = 0
    from_registry: Count = 0
    from_hosts: Count = 0
    held: Count = 0
    reason: Reason = ""


class AgentReport(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an agent's report: progress of deploys, and its host when that changed."""

    reports: Annotated[list[HostReport], Meta(max_length=64)] = []
    host: HostInfo | None = None


class HostRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``GET /v2/_docket/hosts``; *seen* in seconds since 1970, *held* counts images.

    *id* is the beginning of the agent's id: all of it would let others report in its name.
    """

    id: str
    name: str
    address: str
    zone: str
    labels: dict[str, str]
    version: str
    engine: str
    platform: str
    held: int
    disk_free: int
    disk_used: int
    connected: bool
    seen: float


class HostRows(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``GET /v2/_docket/hosts``; *total* counts the rows of all pages."""

    hosts: list[HostRow]
    total: int


class DeployRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /v2/_docket/deploys``: which image, to which hosts, how.

    Hosts are those that match *zone* and all *labels* (each empty: any) or, where *hosts* is given,
    those names. *canary* hosts go first; *pause* seconds after the last of them is done the others
    follow, at most *at_once* at a time (0: all). *deadline* is in seconds from now.
    """

    repository: ShortText
    tag: ShortText = ""
    digest: ShortText = ""
    zone: ShortText = ""
    labels: Labels = {}
    hosts: Annotated[list[ShortText], Meta(max_length=MAX_HOSTS)] = []
    load: bool = False
    canary: Count = 0
    pause: LongSeconds = 0.0
    at_once: Count = 0
    deadline: LongSeconds = 3600.0
    max_download: Count = 0


class DeployHost(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One host of a deploy, as it is shown.

    *seconds* passed from the deploy's creation until the host was done or had failed.
    """

    name: str
    state: str
    zone: str = ""
    total: int = 0
    done: int = 0
    rate: int = 0
    from_registry: int = 0
    from_hosts: int = 0
    held: int = 0
    reason: str = ""
    seconds: float = 0.0


class DeployStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A deploy as ``GET /v2/_docket/deploys/{id}`` shows it.

    *state* is ``running``, ``done``, ``failed``, ``stopped``, ``expired`` or ``superseded``; *why*
    says more. *counts* has the number of hosts in each host state. *hosts* are at most as many as
    were requested: failed ones first, then the slowest. *revision* grows with each change:
    ``?after=`` waits for one. Times are seconds since 1970.
    """

    id: str
    repository: str
    tag: str
    digest: str
    load: bool
    state: str
    why: str
    created: float
    deadline: float
    ended: float
    total: int
    counts: dict[str, int]
    bytes_total: int
    bytes_done: int
    from_registry: int
    from_hosts: int
    from_held: int
    rate: int
    revision: int
    hosts: list[DeployHost]


class DeployRows(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``GET /v2/_docket/deploys``: the newest first, without hosts."""

    deploys: list[DeployStatus]


MESSAGES = (
    *(MissingLayersRequest, MissingLayers, LayerInfo, ImageLayers, ImageRow, ImageList),
    *(GcRequest, GcReport, FsckRequest, FsckReport, FsckFinding, FsckLine),
    *(HostInfo, Order, HostReport, AgentReport, HostRow, HostRows),
    *(DeployRequest, DeployHost, DeployStatus, DeployRows),
)
"""All of the above, for the OpenAPI description."""
