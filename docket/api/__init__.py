"""The registry over HTTP: the OCI distribution API, docket's own calls, and the tracker."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.types import Lifespan

from docket.api import announce, health, images, oci, openapi, upkeep
from docket.api.problems import EXCEPTION_HANDLERS
from docket.api.registry import Registry

__all__ = ["Registry", "app"]


def app(registry: Registry, *, lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """The ASGI application that serves *registry*."""
    application = Starlette(
        routes=[
            *health.ROUTES,
            *openapi.ROUTES,
            *announce.ROUTES,
            *images.ROUTES,
            *upkeep.ROUTES,
            *oci.ROUTES,
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    application.router.redirect_slashes = False  # another path is another resource: 404
    application.state.registry = registry
    return application
