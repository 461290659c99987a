"""The agent's side of OCI distribution: a read-only registry for the engines of this host."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from functools import partial
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from docket.agent.arriving import ArrivingLayer
from docket.agent.pull_through import PullThrough
from docket.api.errors import EXCEPTION_HANDLERS
from docket.api.middleware.guard import Guard
from docket.api.responses import API_VERSION, BlobResponse, json_response, wanted_range
from docket.api.services import Threads
from docket.oci.digest import Digest
from docket.oci.reference import parse_repository, parse_target
from docket.rate_limit import RateLimiter

_THREADS = 32
_BLOCK = 1 << 20
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.02
"""Seconds between two looks at a layer that has not come further."""


class AgentServices:
    """What the agent's application serves; *own_names* are the registry's own names in ``?ns=``."""

    def __init__(self, source: PullThrough, *, own_names: frozenset[str] = frozenset()) -> None:
        self.source = source
        self.store = source.store
        self.own_names = own_names
        self.sending = RateLimiter()
        self.threads = Threads()
        # these wait for the registry: reads of what is held don't wait for them
        self.waiting = CapacityLimiter(_THREADS)


def agent_app(services: AgentServices) -> Starlette:
    """The ASGI application that serves *services*."""
    application = Starlette(
        routes=ROUTES,
        exception_handlers=EXCEPTION_HANDLERS,
        middleware=[Middleware(_Dated), Middleware(Guard)],
    )
    application.router.redirect_slashes = False
    application.state.agent = services
    return application


class _Dated:
    """Middleware that dates responses (RFC 9110 § 6.6.1): the agent's server has no clock ticks."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = (b"date", formatdate(usegmt=True).encode())
                message = {**message, "headers": [*message["headers"], date]}
            await send(message)

        await self._app(scope, receive, sending)


async def version(_request: Request) -> Response:
    """GET /v2/: this is a registry."""
    return json_response({})


async def get_manifest(request: Request) -> Response:
    """GET and HEAD a manifest, as the registry has it now, or as this host knows it."""
    services = _services(request)
    target = parse_target(request.path_params["reference"])
    repository = _repository(request)
    served = await run_sync(services.source.manifest, repository, target, limiter=services.waiting)
    stored = served.stored
    headers = {
        **API_VERSION,
        "Docker-Content-Digest": str(stored.digest),
        "Content-Type": stored.media_type,
        "ETag": f'"{stored.digest}"',
    }
    if served.is_stale:
        # RFC 7234 § 5.5.1
        headers["Warning"] = (
            '110 docket "the registry did not answer; this is the tag as last known"'
        )
    return Response(stored.content, headers=headers)


async def get_blob(request: Request) -> Response:
    """GET and HEAD a blob, whole or a range of it; a layer while it still arrives."""
    services = _services(request)
    digest = Digest.parse(request.path_params["digest"])
    repository = _repository(request)
    blob = await run_sync(services.source.blob, repository, digest, limiter=services.waiting)
    if isinstance(blob, ArrivingLayer):
        return ArrivingResponse(blob, request)
    return BlobResponse(services, blob, request)


class ArrivingResponse(Response):
    """A layer, or one range of it, as its pieces are verified; breaks off when it doesn't come."""

    def __init__(self, layer: ArrivingLayer, request: Request) -> None:
        self._layer = layer
        self._is_head = request.method == "HEAD"
        self._start, self._end = 0, layer.size
        self._threads = _services(request).threads
        status = 200
        headers = {
            **API_VERSION,
            "Accept-Ranges": "bytes",
            "Docker-Content-Digest": str(layer.digest),
            "ETag": f'"{layer.digest}"',
        }
        if chosen := wanted_range(request.headers.get("range"), layer.size):
            self._start, self._end = chosen
            status = 206 if self._start < self._end else 416
            whole = f"{self._start}-{self._end - 1}" if status == 206 else "*"
            headers["Content-Range"] = f"bytes {whole}/{layer.size}"
        headers["Content-Length"] = str(self._end - self._start)
        super().__init__(status_code=status, headers=headers, media_type="application/octet-stream")

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)
        if not self._is_head:
            await self._send_body(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_body(self, send: Send) -> None:
        offset, pause = self._start, _FIRST_PAUSE
        while offset < self._end:
            count = min(_BLOCK, self._end - offset)
            block = await self._threads.read_block(partial(self._layer.read, offset, count))
            if block:
                offset, pause = offset + len(block), _FIRST_PAUSE
                await send({"type": "http.response.body", "body": block, "more_body": True})
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE)


def _services(request: Request) -> AgentServices:
    services: AgentServices = request.app.state.agent
    return services


def _repository(request: Request) -> str:
    """The repository at docket's registry: ``?ns=`` names the registry that the engine means."""
    name = parse_repository(request.path_params["name"])
    registry = request.query_params.get("ns", "")
    if not registry or registry in _services(request).own_names:
        return name
    # a port's colon may not stand in a repository's name
    return parse_repository(f"{registry.lower().replace(':', '_')}/{name}")


ROUTES: list[Any] = [
    Route("/v2/", version),
    Route("/v2", version),
    Route("/v2/{name:path}/manifests/{reference}", get_manifest, methods=["GET"]),
    Route("/v2/{name:path}/blobs/{digest}", get_blob, methods=["GET"]),
]
