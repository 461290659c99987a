"""The JSON schemas of what the API takes and gives; those of docket's own come from `wire`."""

from __future__ import annotations

from typing import Any

import msgspec

from docket import wire
from docket.oci import manifest
from docket.oci.reference import MAX_REPOSITORY

Json = dict[str, Any]

NAME = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
TAG = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"
ZONE = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
DIGEST = r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"

BINARY = "application/octet-stream"
JSON = "application/json"
MANIFEST_TYPES = sorted(manifest.MANIFEST_TYPES)
INDEX_TYPES = sorted(manifest.INDEX_TYPES)

TEXT: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0}


def ref(name: str) -> Json:
    """The schema of that name."""
    return {"$ref": f"#/components/schemas/{name}"}


def list_of(items: Json) -> Json:
    """An array of these."""
    return {"type": "array", "items": items}


def object_of(required: Json, **optional: Json) -> Json:
    """An object with these fields; more may come."""
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
    }


def whole(pattern: str, **more: Any) -> Json:
    """A text of which all follows *pattern*."""
    return {"type": "string", "pattern": f"^({pattern})$", **more}


SCHEMAS: Json = {
    "Name": whole(NAME, maxLength=MAX_REPOSITORY),
    "Digest": whole(DIGEST),
    "Error": object_of(
        {"errors": list_of(object_of({"code": TEXT, "message": TEXT}, detail={})) | {"minItems": 1}}
    ),
    "Platform": object_of({"os": TEXT, "architecture": TEXT}, variant=TEXT),
    "Annotations": {"type": "object", "additionalProperties": TEXT},
    "Descriptor": object_of(
        {"mediaType": TEXT | {"minLength": 1}, "digest": ref("Digest"), "size": COUNT},
        annotations=ref("Annotations"),
        platform=ref("Platform"),
        artifactType=TEXT,
    ),
    "Manifest": object_of(
        {
            "schemaVersion": {"const": 2},
            "config": ref("Descriptor"),
            "layers": list_of(ref("Descriptor")),
        },
        mediaType={"enum": MANIFEST_TYPES},
        subject=ref("Descriptor"),
        artifactType=TEXT,
        annotations=ref("Annotations"),
    ),
    "Index": object_of(
        {"schemaVersion": {"const": 2}, "manifests": list_of(ref("Descriptor"))},
        mediaType={"enum": INDEX_TYPES},
        subject=ref("Descriptor"),
        artifactType=TEXT,
        annotations=ref("Annotations"),
    ),
}


def own_schemas() -> Json:
    """The schemas of docket's own messages."""
    template = "#/components/schemas/{name}"
    _, components = msgspec.json.schema_components(wire.MESSAGES, ref_template=template)
    return components
