"""What each path takes and answers, for the OpenAPI description."""

from __future__ import annotations

from docket.api.openapi.fleet import FLEET_IN_PATH, FLEET_PATHS
from docket.api.openapi.operations import (
    answer,
    body,
    call,
    get,
    json_answer,
    parameter,
    takes_json,
)
from docket.api.openapi.schemas import (
    BINARY,
    COUNT,
    DIGEST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    NAME,
    TAG,
    TEXT,
    ZONE,
    Json,
    list_of,
    object_of,
    ref,
    whole,
)
from docket.oci import manifest

_NAMED = parameter("path", "name", ref("Name"), "the repository; its slashes may stand as they are")
_DIGESTED = parameter("path", "digest", ref("Digest"), "of a blob or manifest")
_REFERRED = parameter("path", "reference", whole(f"{TAG}|{DIGEST}"), "a tag or digest")
_IN_ZONE = parameter("path", "zone", whole(ZONE), "where the peer is")
_UPLOADED = parameter("path", "upload", TEXT | {"format": "uuid"}, "the session")
_IMAGE = parameter("path", "name", whole(f"{NAME}(:{TAG})?(@({DIGEST}))?"), "name:tag")

_RANGE = parameter(
    "header", "Range", whole("bytes=[0-9]*-[0-9]*"), "other ranges, and several, give the whole"
)
_PART = parameter(
    "header", "Content-Range", whole("[0-9]{1,18}-[0-9]{1,18}"), "the part's first and last byte"
)
_PLATFORM = parameter("query", "platform", TEXT, "os/architecture, where it is an index")
_TOLD_ZONE = parameter("query", "zone", whole(ZONE), "where the peers of the torrent are")
_JOINING = parameter(
    "query",
    "join_token",
    TEXT,
    "a token of a host that is about to join the swarm, for Docket-Gateway",
)
_PAGE = (
    parameter("query", "n", COUNT, "how many, at most 1000"),
    parameter("query", "last", TEXT, "the name behind which the page begins"),
)


_BLOB_HEADERS = ("Docker-Content-Digest", "ETag", "Accept-Ranges")
_MANIFESTS = {media_type: {"schema": ref("Manifest")} for media_type in MANIFEST_TYPES} | {
    media_type: {"schema": ref("Index")} for media_type in INDEX_TYPES
}
_BYTES: Json = {BINARY: {}}
_SESSION = ("Location", "Range", "Docker-Upload-UUID")
_STORED = answer("stored", "Location", "Docker-Content-Digest")
_OUT_OF_ORDER = json_answer("the part belongs elsewhere", ref("Error"), *_SESSION)
_WRITE_REFUSALS = (400, 404, 409, 507)
_UPSTREAM_REFUSALS = (403, 429, 502, 507)
"""Of images that another registry has: it denies them, limits the rate, fails; the disk is full."""
_TORRENT = get(
    "The torrent of an image; seeding begins",
    {
        200: answer(
            "the torrent",
            "Docker-Content-Digest",
            "Docket-Gateway",
            media_type="application/x-bittorrent",
        )
    },
    *(400, 404, *_UPSTREAM_REFUSALS),
    takes=(_PLATFORM, _TOLD_ZONE, _JOINING),
)
_PIECES = get(
    "The piece hashes of some blobs of an image, for who makes its torrent; seeding begins",
    {
        200: answer(
            "20 bytes for each piece of the blobs, in the order of the request",
            "Docker-Content-Digest",
            "Docket-Gateway",
            "Docket-Info-Hash",
            "Docket-Piece-Length",
            "Docket-Announce",
            "Docket-Hash-Peer",
            media_type=BINARY,
        )
    },
    *(400, 404, *_UPSTREAM_REFUSALS),
    takes=(
        parameter("query", "digests", TEXT, "digests of blobs, with commas between them"),
        parameter("query", "port", TEXT, "at which this host will serve hashes to others"),
        parameter(
            "query", "failed_peer", TEXT, "a Docket-Hash-Peer that sent nothing, or wrong hashes"
        ),
        *(_PLATFORM, _TOLD_ZONE, _JOINING),
    ),
)
_BENCODED = answer("bencoded, refusals too", media_type="text/plain")

_ANNOUNCE = get(
    "A BitTorrent peer's report (BEP 3)",
    {200: _BENCODED},
    takes=tuple(
        parameter("query", name, schema, text)
        for name, schema, text in (
            ("info_hash", TEXT, "20 bytes"),
            ("peer_id", TEXT, "20 bytes"),
            ("port", COUNT, "where the peer listens"),
            ("left", COUNT, "bytes it lacks"),
            ("numwant", COUNT, "peers it wants"),
            ("event", TEXT, "started, completed, stopped or paused"),
            ("key", TEXT, "known to the peer alone"),
        )
    ),
)

PATHS: dict[str, Json] = {
    "/v2/": get("Whether this is a registry", {200: json_answer("it is", {"type": "object"})}),
    "/v2/_catalog": get(
        "The repositories, sorted",
        {200: json_answer("a page", object_of({"repositories": list_of(ref("Name"))}), "Link")},
        *(400,),
        takes=_PAGE,
    ),
    "/v2/{name}/blobs/uploads/": {
        "post": call(
            "Begin an upload; or push a blob at once; or mount one",
            {
                201: _STORED,
                202: answer("a session", *_SESSION),
                416: json_answer("a whole blob begins at 0", ref("Error")),
            },
            *_WRITE_REFUSALS,
            takes=(
                parameter("query", "digest", ref("Digest"), "of the body, which is the blob"),
                parameter("query", "mount", ref("Digest"), "a blob that is to be had here too"),
                parameter("query", "from", ref("Name"), "whose blob; none: anyone's"),
                _PART,
            ),
            requestBody=body(_BYTES, required=False),
        )
    },
    "/v2/{name}/blobs/uploads/{upload}": {
        **get("How far the upload is", {204: answer("Range says it", *_SESSION)}, *(400, 404)),
        "patch": call(
            "The next part",
            {202: answer("it is here", *_SESSION), 416: _OUT_OF_ORDER},
            *_WRITE_REFUSALS,
            takes=(_PART,),
            requestBody=body(_BYTES),
        ),
        "put": call(
            "The last part, which may be empty",
            {201: _STORED, 416: _OUT_OF_ORDER},
            *_WRITE_REFUSALS,
            takes=(
                parameter("query", "digest", ref("Digest"), "of the whole", required=True),
                _PART,
            ),
            requestBody=body(_BYTES, required=False),
        ),
        "delete": call("Cancel the upload", {204: answer("it is gone")}, *_WRITE_REFUSALS),
    },
    "/v2/{name}/blobs/{digest}": {
        **get(
            "A blob, or a range of it",
            {
                200: answer("the blob", *_BLOB_HEADERS, media_type=BINARY),
                206: answer("the range", *_BLOB_HEADERS, "Content-Range", media_type=BINARY),
                416: answer("no byte of it is in the range", "Content-Range"),
            },
            *(400, 404, *_UPSTREAM_REFUSALS),
            takes=(_RANGE,),
        ),
        "delete": call(
            "Delete a blob from this repository", {202: answer("it is gone")}, 400, 404, 507
        ),
    },
    "/v2/{name}/manifests/{reference}": {
        **get(
            "A manifest: the bytes and type that were pushed",
            {
                200: answer("the manifest", "Docker-Content-Digest", "ETag")
                | {"content": _MANIFESTS}
            },
            *(400, 404, *_UPSTREAM_REFUSALS),
        ),
        "put": call(
            "Push a manifest; 404 when the repository lacks something that it names",
            {201: answer("stored", "Location", "Docker-Content-Digest", "OCI-Subject")},
            *(400, 404, 413, 507),
            requestBody=body(_MANIFESTS),
        ),
        "delete": call(
            "Delete a tag; or a manifest, with its tags",
            {202: answer("it is gone")},
            *(400, 404, 507),
        ),
    },
    "/v2/{name}/tags/list": get(
        "The tags, sorted",
        {
            200: json_answer(
                "a page", object_of({"name": ref("Name"), "tags": list_of(TEXT)}), "Link"
            )
        },
        *(400, 404),
        takes=_PAGE,
    ),
    "/v2/{name}/referrers/{digest}": get(
        "The manifests whose subject this is; none is an empty index",
        {
            200: json_answer(
                "a page",
                ref("Index"),
                *("OCI-Filters-Applied", "Link"),
                media_type=manifest.OCI_INDEX,
            )
        },
        *(400, 404),
        takes=(
            parameter("query", "artifactType", TEXT, "only those of this type"),
            parameter("query", "last", TEXT, "the digest after which the page begins"),
        ),
    ),
    "/v2/{name}/_docket/missing": {
        "post": call(
            "Which layers the registry lacks; those it holds become the repository's",
            {200: json_answer("both kinds", ref("MissingLayers"))},
            *(400, 404, 413, 507),
            requestBody=takes_json("MissingLayersRequest"),
        )
    },
    "/v2/{name}/_docket/layers/{reference}": get(
        "What each layer of an image unpacks to",
        {200: json_answer("null where that is unknown", ref("ImageLayers"))},
        *(400, 404),
        takes=(_PLATFORM,),
    ),
    "/v2/{name}/_docket/torrent/{reference}": _TORRENT,
    "/v2/{name}/_docket/pieces/{reference}": _PIECES,
    "/torrents/{name}.torrent": {**_TORRENT, "parameters": [_IMAGE]},
    "/v2/_docket/images": get(
        "The tagged images with their sizes",
        {200: json_answer("sorted", ref("ImageList"))},
        takes=(parameter("query", "name", ref("Name"), "of this repository alone"),),
    ),
    "/v2/_docket/gc": {
        "post": call(
            "Collect garbage",
            {200: json_answer("what was done, or would be", ref("GcReport"))},
            *(400, 413, 507),
            requestBody=takes_json("GcRequest", required=False),
        )
    },
    "/v2/_docket/fsck": {
        "post": call(
            "Check the store",
            {
                200: json_answer(
                    "lines: how many blobs are done, of how many; the report, or an error, last",
                    ref("FsckLine"),
                    media_type="application/x-ndjson",
                )
            },
            *(400, 413),
            requestBody=takes_json("FsckRequest", required=False),
        )
    },
    **FLEET_PATHS,
    "/announce": _ANNOUNCE,
    "/announce/{zone}": _ANNOUNCE,
    "/scrape": get(
        "How many peers torrents have (BEP 48)",
        {200: _BENCODED},
        takes=(parameter("query", "info_hash", list_of(TEXT), "20 bytes each"),),
    ),
    "/healthz": get("Whether the process answers", {200: answer("ok", media_type="text/plain")}),
    "/readyz": get("Whether the store answers", {200: answer("ok", media_type="text/plain")}),
    "/metrics": get("Figures", {200: answer("for Prometheus", media_type="text/plain")}),
    "/openapi.json": get("This document", {200: json_answer("OpenAPI 3.1", {"type": "object"})}),
}

SAME_AS = {"/v2": "/v2/", "/v2/{name}/blobs/uploads": "/v2/{name}/blobs/uploads/"}
"""Paths that answer as another does."""

IN_PATH = {
    named["name"]: named
    for named in (_NAMED, _DIGESTED, _REFERRED, _UPLOADED, _IN_ZONE, *FLEET_IN_PATH)
}
