"""Docket's list of images: every tag with its stored bytes."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from docket.api.responses import API_VERSION
from docket.api.services import registry_of
from docket.transfer.listing import image_rows
from docket.wire import ImageList


async def images(request: Request) -> Response:
    """GET all tagged images: stored bytes, and how many of them no other image has."""
    registry = registry_of(request)
    repository = request.query_params.get("name")

    def listed() -> bytes:
        return msgspec.json.encode(ImageList(image_rows(registry.store, repository)))

    content = await registry.threads.maintain(listed)
    return Response(content, media_type="application/json", headers=API_VERSION)


ROUTES = [Route("/v2/_docket/images", images)]
