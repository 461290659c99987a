"""What an application serves: a store, and the seeder and tracker beside it."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.requests import Request

from docket.oci.reference import parse_repository
from docket.rate_limit import RateLimiter
from docket.seeder import Seeder
from docket.store import Store
from docket.torrent.tracker.hash_peers import HashPeers
from docket.torrent.tracker.peers import Tracker


@dataclass(frozen=True, slots=True)
class Registry:
    """*advertise* is the host name or address that peers should use for the registry's own seed;
    empty means the one at which they reached the tracker. *zone* is the seed's label, if any.
    *sending* and *receiving* are the paces of blobs over HTTP."""

    store: Store
    seeder: Seeder
    tracker: Tracker
    advertise: str = ""
    zone: str = ""
    sending: RateLimiter = field(default_factory=RateLimiter)
    receiving: RateLimiter = field(default_factory=RateLimiter)
    hash_peers: HashPeers = field(default_factory=HashPeers)


def registry_of(request: Request) -> Registry:
    """What the application serves."""
    registry: Registry = request.app.state.registry
    return registry


def repository_of(request: Request) -> str:
    """The repository in the path. Raises `InvalidReference`."""
    return parse_repository(request.path_params["name"])
