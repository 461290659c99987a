"""The OpenAPI 3.1 description of all calls, served at /openapi.json."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from docket import __version__
from docket.api.openapi.paths import IN_PATH, PATHS, SAME_AS
from docket.api.openapi.schemas import SCHEMAS, Json, own_schemas
from docket.api.responses import json_response


def document() -> Json:
    """The description as JSON."""
    paths = PATHS | {path: PATHS[same] for path, same in SAME_AS.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "docket",
            "version": __version__,
            "summary": "OCI distribution 1.1, docket's own calls, and a BitTorrent tracker",
            "license": {"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
        },
        "paths": {path: _with_path_parameters(path, item) for path, item in sorted(paths.items())},
        "components": {"schemas": SCHEMAS | own_schemas()},
    }


def _with_path_parameters(path: str, item: Json) -> Json:
    names = re.findall(r"\{(\w+)\}", path)
    return {"parameters": [IN_PATH[name] for name in names], **item} if names else item


async def openapi(_request: Request) -> Response:
    """GET /openapi.json: this API, for programs."""
    return json_response(document())


ROUTES = [Route("/openapi.json", openapi)]
