"""How layers travel to this host."""

from __future__ import annotations

from dataclasses import dataclass

from docket.config import PEER_TIMEOUT


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How layers travel; limits in bytes a second, 0 is none.

    *zone* is the label that the tracker gets. Without *use_swarm* all comes over HTTP, as it does
    once no peer has sent anything for *peer_timeout* seconds. *count_sources* counts for each layer
    what came from the registry's seed and from other hosts.
    """

    zone: str = ""
    use_swarm: bool = True
    peer_timeout: float = PEER_TIMEOUT
    max_upload: int = 0
    max_download: int = 0
    count_sources: bool = False
