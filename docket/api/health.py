"""Whether the registry is alive and ready, and its figures for Prometheus."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from docket.api.errors import problem
from docket.api.services import registry_of


async def alive(_request: Request) -> Response:
    """GET /healthz: the process answers."""
    return PlainTextResponse("ok\n")


async def ready(request: Request) -> Response:
    """GET /readyz: the store can be read and written; 503 with the reason when it can't."""
    registry = registry_of(request)
    if reason := await registry.readiness.reason(registry.store.probe):
        return problem(503, "UNAVAILABLE", reason)
    return PlainTextResponse("ok\n")


async def metrics(_request: Request) -> Response:
    """GET /metrics, as Prometheus reads it."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


ROUTES = [Route("/healthz", alive), Route("/readyz", ready), Route("/metrics", metrics)]
