"""Access to requests that change something: --read-only, --writes-from, no foreign web page."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from docket.api.errors import problem
from docket.api.middleware.forwarded import public_url
from docket.api.middleware.networks import Networks, parse_address

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_AGENTS = "/v2/_docket/agents"
"""What a host's agent says of itself changes no image."""

_OWN_SITES = frozenset({"same-origin", "none"})


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """*writes_from* are the networks whose clients may change something; None: all networks.

    Nobody pushes to repositories below *upstreams*, which are those of other registries.
    """

    read_only: bool = False
    writes_from: Networks | None = None
    upstreams: tuple[str, ...] = ()

    def refusal(self, scope: Scope) -> str:
        """Why this request may not be; empty when it may."""
        if scope["method"] in _READS:
            return ""
        client = (scope.get("client") or ("",))[0]
        if scope["path"].startswith(_AGENTS):
            return _foreign(scope)
        if self.read_only:
            return "this registry is read-only"
        if self.writes_from is not None and client not in self.writes_from:
            return f"{client} may not change anything in this registry (--writes-from)"
        return self._not_ours(scope) or _foreign(scope)

    def _not_ours(self, scope: Scope) -> str:
        """Why nothing is pushed to this repository; what was fetched may be deleted."""
        prefix = scope["path"].removeprefix("/v2/").partition("/")[0]
        if prefix not in self.upstreams or scope["method"] == "DELETE":
            return ""
        return f"images below {prefix}/ are fetched from there; push under another name"


class Access:
    """Middleware that answers 403 to what *policy* refuses."""

    def __init__(self, app: ASGIApp, *, policy: AccessPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = self._policy.refusal(scope) if scope["type"] == "http" else ""
        app = problem(403, "DENIED", reason) if reason else self._app
        await app(scope, receive, send)


def _foreign(scope: Scope) -> str:
    """Whether a browser sent this for a page of another site (Fetch standard § Sec-Fetch-Site).

    A name that an attacker's DNS points to this registry makes a page look like its own; so
    an Origin must be the external URL's, or an IP address at which the registry was reached.
    """
    headers = Headers(scope=scope)
    site = headers.get("sec-fetch-site", "none")
    origin = headers.get("origin")
    if site in _OWN_SITES and (origin is None or _is_own(origin, scope)):
        return ""
    return "a web page of another site may not change anything in this registry"


def _is_own(origin: str, scope: Scope) -> bool:
    url = public_url(scope)
    is_safe = url.is_configured or url.host_name == "localhost" or parse_address(url.host)
    return bool(is_safe) and origin.lower() == url.origin
