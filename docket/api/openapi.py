"""The OpenAPI 3.1 description of all calls, served at /openapi.json."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from docket import __version__, manifest
from docket.api.answers import answer_json
from docket.reference import MAX_REPOSITORY

Json = dict[str, Any]

_NAME = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
_TAG = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"
_ZONE = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_DIGEST = r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"

_BINARY = "application/octet-stream"
_JSON = "application/json"
_MANIFEST_TYPES = sorted(manifest.MANIFEST_TYPES)
_INDEX_TYPES = sorted(manifest.INDEX_TYPES)

_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_FLAG: Json = {"type": "boolean"}
_SECONDS: Json = {"type": "number", "minimum": 0}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _object(required: Json, **optional: Json) -> Json:
    """An object with these fields; more may come."""
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
    }


def _whole(pattern: str, **more: Any) -> Json:
    return {"type": "string", "pattern": f"^({pattern})$", **more}


_SCHEMAS: Json = {
    "Name": _whole(_NAME, maxLength=MAX_REPOSITORY),
    "Digest": _whole(_DIGEST),
    "Error": _object(
        {"errors": _list(_object({"code": _TEXT, "message": _TEXT}, detail={})) | {"minItems": 1}}
    ),
    "Platform": _object({"os": _TEXT, "architecture": _TEXT}, variant=_TEXT),
    "Annotations": {"type": "object", "additionalProperties": _TEXT},
    "Descriptor": _object(
        {"mediaType": _TEXT | {"minLength": 1}, "digest": _ref("Digest"), "size": _COUNT},
        annotations=_ref("Annotations"),
        platform=_ref("Platform"),
        artifactType=_TEXT,
    ),
    "Manifest": _object(
        {
            "schemaVersion": {"const": 2},
            "config": _ref("Descriptor"),
            "layers": _list(_ref("Descriptor")),
        },
        mediaType={"enum": _MANIFEST_TYPES},
        subject=_ref("Descriptor"),
        artifactType=_TEXT,
        annotations=_ref("Annotations"),
    ),
    "Index": _object(
        {"schemaVersion": {"const": 2}, "manifests": _list(_ref("Descriptor"))},
        mediaType={"enum": _INDEX_TYPES},
        subject=_ref("Descriptor"),
        artifactType=_TEXT,
        annotations=_ref("Annotations"),
    ),
    "Layer": _object(
        {
            "diff_id": _ref("Digest"),
            "digest": _ref("Digest"),
            "size": _COUNT,
            "plain_size": _COUNT,
            "media_type": _TEXT,
            "encoder": _TEXT,
        }
    ),
    "Image": _object(
        {
            "name": _ref("Name"),
            "tag": _TEXT,
            "digest": _ref("Digest"),
            "media_type": _TEXT,
            "platforms": _list(_TEXT),
            "layers": _COUNT,
            "size": _COUNT,
            "unique": _COUNT,
            "shared": _COUNT,
            "tagged": _SECONDS,
        }
    ),
    "GcReport": _object(
        {
            "dry_run": _FLAG,
            "manifests": _COUNT,
            "blobs": _COUNT,
            "freed": _COUNT,
            "kept_blobs": _COUNT,
            "kept": _COUNT,
            "pinned_blobs": _COUNT,
            "pinned": _COUNT,
            "pinned_manifests": _COUNT,
        }
    ),
}


def _parameter(place: str, name: str, schema: Json, text: str, *, required: bool = False) -> Json:
    return {
        "name": name,
        "in": place,
        "required": required or place == "path",
        "description": text,
        "schema": schema,
    }


_NAMED = _parameter(
    "path", "name", _ref("Name"), "the repository; its slashes may stand as they are"
)
_DIGESTED = _parameter("path", "digest", _ref("Digest"), "of a blob or manifest")
_REFERRED = _parameter("path", "reference", _whole(f"{_TAG}|{_DIGEST}"), "a tag or digest")
_IN_ZONE = _parameter("path", "zone", _whole(_ZONE), "where the peer is")
_UPLOADED = _parameter("path", "upload", _TEXT | {"format": "uuid"}, "the session")
_IMAGE = _parameter("path", "name", _whole(f"{_NAME}(:{_TAG})?(@({_DIGEST}))?"), "name:tag")

_RANGE = _parameter(
    "header", "Range", _whole("bytes=[0-9]*-[0-9]*"), "other ranges, and several, give the whole"
)
_PART = _parameter(
    "header", "Content-Range", _whole("[0-9]{1,18}-[0-9]{1,18}"), "the part's first and last byte"
)
_PLATFORM = _parameter("query", "platform", _TEXT, "os/architecture, where it is an index")
_TOLD_ZONE = _parameter("query", "zone", _whole(_ZONE), "where the peers of the torrent are")
_PAGE = (
    _parameter("query", "n", _COUNT, "how many, at most 1000"),
    _parameter("query", "last", _TEXT, "the name behind which the page begins"),
)


def _answer(text: str, *headers: str, media_type: str = "", schema: Json | None = None) -> Json:
    answer: Json = {"description": text}
    if headers:
        answer["headers"] = {name: {"schema": _TEXT} for name in headers}
    if media_type:
        answer["content"] = {media_type: {"schema": schema} if schema else {}}
    return answer


def _json(text: str, schema: Json, *headers: str, media_type: str = _JSON) -> Json:
    return _answer(text, *headers, media_type=media_type, schema=schema)


def _body(content: Json, *, required: bool = True) -> Json:
    return {"required": required, "content": content}


def _call(
    summary: str, done: dict[int, Json], *refused: int, takes: tuple[Json, ...] = (), **more: Any
) -> Json:
    """An operation: what it answers when it is *done*, and with which statuses it refuses."""
    answers = {str(status): answer for status, answer in done.items()}
    for status in (*refused, 405):
        phrase = HTTPStatus(status).phrase
        headers = ("Allow",) if status == 405 else ()
        answers.setdefault(str(status), _json(phrase, _ref("Error"), *headers))
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
_MANIFESTS = {kind: {"schema": _ref("Manifest")} for kind in _MANIFEST_TYPES} | {
    kind: {"schema": _ref("Index")} for kind in _INDEX_TYPES
}
_BYTES: Json = {_BINARY: {}}
_SESSION = ("Location", "Range", "Docker-Upload-UUID")
_STORED = _answer("stored", "Location", "Docker-Content-Digest")
_OUT_OF_ORDER = _json("the part belongs elsewhere", _ref("Error"), *_SESSION)
_WRITE_REFUSALS = (400, 404, 409, 507)
_TORRENT = _get(
    "The torrent of an image; seeding begins",
    {200: _answer("the torrent", "Docker-Content-Digest", media_type="application/x-bittorrent")},
    *(400, 404, 507),
    takes=(_PLATFORM, _TOLD_ZONE),
)
_BENCODED = _answer("bencoded, refusals too", media_type="text/plain")
_ANNOUNCE = _get(
    "A BitTorrent peer's report (BEP 3)",
    {200: _BENCODED},
    takes=tuple(
        _parameter("query", name, schema, text)
        for name, schema, text in (
            ("info_hash", _TEXT, "20 bytes"),
            ("peer_id", _TEXT, "20 bytes"),
            ("port", _COUNT, "where the peer listens"),
            ("left", _COUNT, "bytes it lacks"),
            ("numwant", _COUNT, "peers it wants"),
            ("event", _TEXT, "started, completed, stopped or paused"),
            ("key", _TEXT, "known to the peer alone"),
        )
    ),
)

_PATHS: dict[str, Json] = {
    "/v2/": _get("Whether this is a registry", {200: _json("it is", {"type": "object"})}),
    "/v2/_catalog": _get(
        "The repositories, sorted",
        {200: _json("a page", _object({"repositories": _list(_ref("Name"))}), "Link")},
        *(400,),
        takes=_PAGE,
    ),
    "/v2/{name}/blobs/uploads/": {
        "post": _call(
            "Begin an upload; or push a blob at once; or mount one",
            {
                201: _STORED,
                202: _answer("a session", *_SESSION),
                416: _json("a whole blob begins at 0", _ref("Error")),
            },
            *_WRITE_REFUSALS,
            takes=(
                _parameter("query", "digest", _ref("Digest"), "of the body, which is the blob"),
                _parameter("query", "mount", _ref("Digest"), "a blob that is to be had here too"),
                _parameter("query", "from", _ref("Name"), "whose blob; none: anyone's"),
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
                _parameter("query", "digest", _ref("Digest"), "of the whole", required=True),
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
                200: _answer("the blob", *_BLOB_HEADERS, media_type=_BINARY),
                206: _answer("the range", *_BLOB_HEADERS, "Content-Range", media_type=_BINARY),
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
        {200: _json("a page", _object({"name": _ref("Name"), "tags": _list(_TEXT)}), "Link")},
        *(400, 404),
        takes=_PAGE,
    ),
    "/v2/{name}/referrers/{digest}": _get(
        "The manifests whose subject this is; none is an empty index",
        {
            200: _json(
                "an index", _ref("Index"), "OCI-Filters-Applied", media_type=manifest.OCI_INDEX
            )
        },
        *(400, 404),
        takes=(_parameter("query", "artifactType", _TEXT, "only those of this type"),),
    ),
    "/v2/{name}/_docket/missing": {
        "post": _call(
            "Which layers the registry lacks; those it holds become the repository's",
            {
                200: _json(
                    "both kinds",
                    _object({"held": _list(_ref("Layer")), "missing": _list(_ref("Digest"))}),
                )
            },
            *(400, 404, 413, 507),
            requestBody=_body(
                {
                    _JSON: {
                        "schema": _object({"diff_ids": _list(_ref("Digest")) | {"maxItems": 4096}})
                    }
                }
            ),
        )
    },
    "/v2/{name}/_docket/layers/{reference}": _get(
        "What each layer of an image unpacks to",
        {
            200: _json(
                "null where that is unknown",
                _object(
                    {
                        "digest": _ref("Digest"),
                        "layers": _list({"anyOf": [_ref("Layer"), {"type": "null"}]}),
                    }
                ),
            )
        },
        *(400, 404),
        takes=(_PLATFORM,),
    ),
    "/v2/{name}/_docket/torrent/{reference}": _TORRENT,
    "/torrents/{name}.torrent": {**_TORRENT, "parameters": [_IMAGE]},
    "/v2/_docket/images": _get(
        "The tagged images with their sizes",
        {200: _json("sorted", _object({"images": _list(_ref("Image"))}))},
        takes=(_parameter("query", "name", _ref("Name"), "of this repository alone"),),
    ),
    "/v2/_docket/gc": {
        "post": _call(
            "Collect garbage",
            {200: _json("what was done, or would be", _ref("GcReport"))},
            *(400, 413, 507),
            requestBody=_body(
                {
                    _JSON: {
                        "schema": _object(
                            {}, dry_run=_FLAG, grace={"anyOf": [_SECONDS, {"type": "null"}]}
                        )
                    }
                },
                required=False,
            ),
        )
    },
    "/announce": _ANNOUNCE,
    "/announce/{zone}": _ANNOUNCE,
    "/scrape": _get(
        "How many peers torrents have (BEP 48)",
        {200: _BENCODED},
        takes=(_parameter("query", "info_hash", _list(_TEXT), "20 bytes each"),),
    ),
    "/healthz": _get("Whether the process answers", {200: _answer("ok", media_type="text/plain")}),
    "/readyz": _get("Whether the store answers", {200: _answer("ok", media_type="text/plain")}),
    "/metrics": _get("Figures", {200: _answer("for Prometheus", media_type="text/plain")}),
    "/openapi.json": _get("This document", {200: _json("OpenAPI 3.1", {"type": "object"})}),
}

_ALSO = {"/v2": "/v2/", "/v2/{name}/blobs/uploads": "/v2/{name}/blobs/uploads/"}
"""Paths that answer as another does."""

_IN_PATH = {one["name"]: one for one in (_NAMED, _DIGESTED, _REFERRED, _UPLOADED, _IN_ZONE)}


def document() -> Json:
    """The description as JSON."""
    paths = _PATHS | {path: _PATHS[same] for path, same in _ALSO.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "docket",
            "version": __version__,
            "summary": "OCI distribution 1.1, docket's own calls, and a BitTorrent tracker",
            "license": {"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
        },
        "paths": {path: _with_path_parameters(path, item) for path, item in sorted(paths.items())},
        "components": {"schemas": _SCHEMAS},
    }


def _with_path_parameters(path: str, item: Json) -> Json:
    names = re.findall(r"\{(\w+)\}", path)
    return {"parameters": [_IN_PATH[name] for name in names], **item} if names else item


async def openapi(_request: Request) -> Response:
    """GET /openapi.json: this API, for programs."""
    return answer_json(document())


ROUTES = [Route("/openapi.json", openapi)]
