"""What each path takes and answers, for the OpenAPI description."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from docket.api.openapi.schemas import (
    BINARY,
    COUNT,
    DIGEST,
    INDEX_TYPES,
    JSON,
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


def _parameter(place: str, name: str, schema: Json, text: str, *, required: bool = False) -> Json:
    return {
        "name": name,
        "in": place,
        "required": required or place == "path",
        "description": text,
        "schema": schema,
    }


_NAMED = _parameter(
    "path", "name", ref("Name"), "the repository; its slashes may stand as they are"
)
_DIGESTED = _parameter("path", "digest", ref("Digest"), "of a blob or manifest")
_REFERRED = _parameter("path", "reference", whole(f"{TAG}|{DIGEST}"), "a tag or digest")
_IN_ZONE = _parameter("path", "zone", whole(ZONE), "where the peer is")
_UPLOADED = _parameter("path", "upload", TEXT | {"format": "uuid"}, "the session")
_IMAGE = _parameter("path", "name", whole(f"{NAME}(:{TAG})?(@({DIGEST}))?"), "name:tag")

_RANGE = _parameter(
    "header", "Range", whole("bytes=[0-9]*-[0-9]*"), "other ranges, and several, give the whole"
)
_PART = _parameter(
    "header", "Content-Range", whole("[0-9]{1,18}-[0-9]{1,18}"), "the part's first and last byte"
)
_PLATFORM = _parameter("query", "platform", TEXT, "os/architecture, where it is an index")
_TOLD_ZONE = _parameter("query", "zone", whole(ZONE), "where the peers of the torrent are")
_JOINING = _parameter(
    "query",
    "join_token",
    TEXT,
    "a token of a host that is about to join the swarm, for Docket-Gateway",
)
_PAGE = (
    _parameter("query", "n", COUNT, "how many, at most 1000"),
    _parameter("query", "last", TEXT, "the name behind which the page begins"),
)


def _answer(text: str, *headers: str, media_type: str = "", schema: Json | None = None) -> Json:
    answer: Json = {"description": text}
    if headers:
        answer["headers"] = {name: {"schema": TEXT} for name in headers}
    if media_type:
        answer["content"] = {media_type: {"schema": schema} if schema else {}}
    return answer


def _json(text: str, schema: Json, *headers: str, media_type: str = JSON) -> Json:
    return _answer(text, *headers, media_type=media_type, schema=schema)


def _body(content: Json, *, required: bool = True) -> Json:
    return {"required": required, "content": content}


def _takes_json(name: str, *, required: bool = True) -> Json:
    return _body({JSON: {"schema": ref(name)}}, required=required)


def _call(
    summary: str, done: dict[int, Json], *refused: int, takes: tuple[Json, ...] = (), **more: Any
) -> Json:
    """An operation: what it answers when it is *done*, and with which statuses it refuses."""
    answers = {str(status): answer for status, answer in done.items()}
    for status in (*refused, 405):
        phrase = HTTPStatus(status).phrase
        headers = ("Allow",) if status == 405 else ()
        answers.setdefault(str(status), _json(phrase, ref("Error"), *headers))
    return {"summary": summary, "parameters": list(takes), "responses": answers, **more}


def _get(
    summary: str, done: dict[int, Json], *refused: int, takes: tuple[Json, ...] = ()
) -> dict[str, Json]:
    """GET, and HEAD, which answers the same without a body."""
    get = _call(summary, done, *refused, takes=takes)
    bare = {
        status: {key: value for key, value in answer.items() if key != "content"}
        for status, answer in get["responses"].items()
    }
    return {"get": get, "head": get | {"summary": f"{summary}: headers alone", "responses": bare}}


_BLOB_HEADERS = ("Docker-Content-Digest", "ETag", "Accept-Ranges")
_MANIFESTS = {kind: {"schema": ref("Manifest")} for kind in MANIFEST_TYPES} | {
    kind: {"schema": ref("Index")} for kind in INDEX_TYPES
}
_BYTES: Json = {BINARY: {}}
_SESSION = ("Location", "Range", "Docker-Upload-UUID")
_STORED = _answer("stored", "Location", "Docker-Content-Digest")
_OUT_OF_ORDER = _json("the part belongs elsewhere", ref("Error"), *_SESSION)
_WRITE_REFUSALS = (400, 404, 409, 507)
_TORRENT = _get(
    "The torrent of an image; seeding begins",
    {
        200: _answer(
            "the torrent",
            "Docker-Content-Digest",
            "Docket-Gateway",
            media_type="application/x-bittorrent",
        )
    },
    *(400, 404, 507),
    takes=(_PLATFORM, _TOLD_ZONE, _JOINING),
)
_PIECES = _get(
    "The piece hashes of some blobs of an image, for who makes its torrent; seeding begins",
    {
        200: _answer(
            "20 bytes for each piece of the blobs, in the order in which they are asked for",
            "Docker-Content-Digest",
            "Docket-Gateway",
            "Docket-Info-Hash",
            "Docket-Piece-Length",
            "Docket-Announce",
            "Docket-Hash-Peer",
            media_type=BINARY,
        )
    },
    *(400, 404, 507),
    takes=(
        _parameter("query", "digests", TEXT, "digests of blobs, with commas between them"),
        _parameter("query", "port", TEXT, "at which this host will tell others"),
        _parameter("query", "failed_peer", TEXT, "a Docket-Hash-Peer that told nothing, or wrong"),
        *(_PLATFORM, _TOLD_ZONE, _JOINING),
    ),
)
_BENCODED = _answer("bencoded, refusals too", media_type="text/plain")

_ANNOUNCE = _get(
    "A BitTorrent peer's report (BEP 3)",
    {200: _BENCODED},
    takes=tuple(
        _parameter("query", name, schema, text)
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
    "/v2/": _get("Whether this is a registry", {200: _json("it is", {"type": "object"})}),
    "/v2/_catalog": _get(
        "The repositories, sorted",
        {200: _json("a page", object_of({"repositories": list_of(ref("Name"))}), "Link")},
        *(400,),
        takes=_PAGE,
    ),
    "/v2/{name}/blobs/uploads/": {
        "post": _call(
            "Begin an upload; or push a blob at once; or mount one",
            {
                201: _STORED,
                202: _answer("a session", *_SESSION),
                416: _json("a whole blob begins at 0", ref("Error")),
            },
            *_WRITE_REFUSALS,
            takes=(
                _parameter("query", "digest", ref("Digest"), "of the body, which is the blob"),
                _parameter("query", "mount", ref("Digest"), "a blob that is to be had here too"),
                _parameter("query", "from", ref("Name"), "whose blob; none: anyone's"),
                _PART,
            ),
            requestBody=_body(_BYTES, required=False),
        )
    },
    "/v2/{name}/blobs/uploads/{upload}": {
        **_get("How far the upload is", {204: _answer("Range says it", *_SESSION)}, *(400, 404)),
        "patch": _call(
            "The next part",
            {202: _answer("it is here", *_SESSION), 416: _OUT_OF_ORDER},
            *_WRITE_REFUSALS,
            takes=(_PART,),
            requestBody=_body(_BYTES),
        ),
        "put": _call(
            "The last part, which may be empty",
            {201: _STORED, 416: _OUT_OF_ORDER},
            *_WRITE_REFUSALS,
            takes=(
                _parameter("query", "digest", ref("Digest"), "of the whole", required=True),
                _PART,
            ),
            requestBody=_body(_BYTES, required=False),
        ),
        "delete": _call("Cancel the upload", {204: _answer("it is gone")}, *_WRITE_REFUSALS),
    },
    "/v2/{name}/blobs/{digest}": {
        **_get(
            "A blob, or a range of it",
            {
                200: _answer("the blob", *_BLOB_HEADERS, media_type=BINARY),
                206: _answer("the range", *_BLOB_HEADERS, "Content-Range", media_type=BINARY),
                416: _answer("no byte of it is in the range", "Content-Range"),
            },
            *(400, 404),
            takes=(_RANGE,),
        ),
        "delete": _call(
            "Delete a blob from this repository", {202: _answer("it is gone")}, 400, 404, 507
        ),
    },
    "/v2/{name}/manifests/{reference}": {
        **_get(
            "A manifest: the bytes and type that were pushed",
            {
                200: _answer("the manifest", "Docker-Content-Digest", "ETag")
                | {"content": _MANIFESTS}
            },
            *(400, 404),
        ),
        "put": _call(
            "Push a manifest; 404 when the repository lacks something that it names",
            {201: _answer("stored", "Location", "Docker-Content-Digest", "OCI-Subject")},
            *(400, 404, 413, 507),
            requestBody=_body(_MANIFESTS),
        ),
        "delete": _call(
            "Delete a tag; or a manifest, with its tags",
            {202: _answer("it is gone")},
            *(400, 404, 507),
        ),
    },
    "/v2/{name}/tags/list": _get(
        "The tags, sorted",
        {200: _json("a page", object_of({"name": ref("Name"), "tags": list_of(TEXT)}), "Link")},
        *(400, 404),
        takes=_PAGE,
    ),
    "/v2/{name}/referrers/{digest}": _get(
        "The manifests whose subject this is; none is an empty index",
        {
            200: _json(
                "an index", ref("Index"), "OCI-Filters-Applied", media_type=manifest.OCI_INDEX
            )
        },
        *(400, 404),
        takes=(_parameter("query", "artifactType", TEXT, "only those of this type"),),
    ),
    "/v2/{name}/_docket/missing": {
        "post": _call(
            "Which layers the registry lacks; those it holds become the repository's",
            {200: _json("both kinds", ref("MissingLayers"))},
            *(400, 404, 413, 507),
            requestBody=_takes_json("MissingLayersRequest"),
        )
    },
    "/v2/{name}/_docket/layers/{reference}": _get(
        "What each layer of an image unpacks to",
        {200: _json("null where that is unknown", ref("ImageLayers"))},
        *(400, 404),
        takes=(_PLATFORM,),
    ),
    "/v2/{name}/_docket/torrent/{reference}": _TORRENT,
    "/v2/{name}/_docket/pieces/{reference}": _PIECES,
    "/torrents/{name}.torrent": {**_TORRENT, "parameters": [_IMAGE]},
    "/v2/_docket/images": _get(
        "The tagged images with their sizes",
        {200: _json("sorted", ref("ImageList"))},
        takes=(_parameter("query", "name", ref("Name"), "of this repository alone"),),
    ),
    "/v2/_docket/gc": {
        "post": _call(
            "Collect garbage",
            {200: _json("what was done, or would be", ref("GcReport"))},
            *(400, 413, 507),
            requestBody=_takes_json("GcRequest", required=False),
        )
    },
    "/v2/_docket/fsck": {
        "post": _call(
            "Check the store",
            {
                200: _json(
                    "lines: how many blobs are done, of how many; the report, or an error, last",
                    ref("FsckLine"),
                    media_type="application/x-ndjson",
                )
            },
            *(400, 413),
            requestBody=_takes_json("FsckRequest", required=False),
        )
    },
    "/announce": _ANNOUNCE,
    "/announce/{zone}": _ANNOUNCE,
    "/scrape": _get(
        "How many peers torrents have (BEP 48)",
        {200: _BENCODED},
        takes=(_parameter("query", "info_hash", list_of(TEXT), "20 bytes each"),),
    ),
    "/healthz": _get("Whether the process answers", {200: _answer("ok", media_type="text/plain")}),
    "/readyz": _get("Whether the store answers", {200: _answer("ok", media_type="text/plain")}),
    "/metrics": _get("Figures", {200: _answer("for Prometheus", media_type="text/plain")}),
    "/openapi.json": _get("This document", {200: _json("OpenAPI 3.1", {"type": "object"})}),
}

SAME_AS = {"/v2": "/v2/", "/v2/{name}/blobs/uploads": "/v2/{name}/blobs/uploads/"}
"""Paths that answer as another does."""

IN_PATH = {
    parameter["name"]: parameter
    for parameter in (_NAMED, _DIGESTED, _REFERRED, _UPLOADED, _IN_ZONE)
}
