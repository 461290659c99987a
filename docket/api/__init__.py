"""The registry over HTTP: the OCI distribution API, docket's own calls, and the tracker."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import Lifespan

from docket.api import fleet, health, images, layers, openapi, torrents, tracker
from docket.api.errors import EXCEPTION_HANDLERS
from docket.api.maintenance import routes as maintenance
from docket.api.middleware.access import Access, AccessPolicy
from docket.api.middleware.forwarded import ProxyHeaders, PublicUrl
from docket.api.middleware.guard import Guard
from docket.api.middleware.networks import Networks
from docket.api.oci import blobs, lists, manifests, uploads
from docket.api.services import Registry

__all__ = ["AccessPolicy", "Networks", "PublicUrl", "Registry", "app"]


def app(
    registry: Registry,
    *,
    access: AccessPolicy | None = None,
    trusted_proxies: Networks | None = None,
    external_url: PublicUrl | None = None,
    external_address: str = "",
    lifespan: Lifespan[Starlette] | None = None,
) -> Starlette:
    """The ASGI application that serves *registry*.

    *external_url* is its URL for all clients, else it is what each has used; *external_address* is
    the IP address of its host.
    """
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
            *uploads.ROUTES,
            *blobs.ROUTES,
            *manifests.ROUTES,
            *lists.ROUTES,
        ],
        middleware=[
            Middleware(Guard),
            Middleware(
                ProxyHeaders,
                trusted=trusted_proxies or Networks(),
                external_url=external_url,
                external_address=external_address,
            ),
            Middleware(Access, policy=access or AccessPolicy()),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    application.router.redirect_slashes = False  # another path is another resource: 404
    application.state.registry = registry
    return application
