"""The registry over HTTP: the OCI distribution API, docket's own calls, and the tracker."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.types import Lifespan

from docket.api import (
    fleet,
    health,
    images,
    layers,
    maintenance,
    oci,
    openapi,
    torrents,
    tracker,
)
from docket.api.errors import EXCEPTION_HANDLERS
from docket.api.services import Registry

__all__ = ["Registry", "app"]


def app(registry: Registry, *, lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """The ASGI application that serves *registry*."""
    application = Starlette(
        routes=[
            *health.ROUTES,
            *openapi.ROUTES,
            *tracker.ROUTES,
            *layers.ROUTES,
            *torrents.ROUTES,
            *images.ROUTES,
            *maintenance.ROUTES,
            *fleet.ROUTES,
            *oci.ROUTES,
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    application.router.redirect_slashes = False  # another path is another resource: 404
    application.state.registry = registry
    return application
