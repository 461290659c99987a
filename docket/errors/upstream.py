"""Errors of an upstream: another registry, that images are fetched from."""

from __future__ import annotations

import math

from docket.errors.services import RegistryError


class UpstreamError(RegistryError):
    """An upstream registry sent nothing usable, or something that is not what it should be."""

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        super().__init__(f"{name}: {why}")


class UpstreamUnavailable(UpstreamError):
    """The upstream can't be reached, is too slow, or fails."""


class UpstreamDenied(UpstreamError):
    """The upstream refuses to send the image to this registry."""

    def __init__(self, name: str, repository: str, why: str) -> None:
        hint = "does the image exist, and do the credentials of --upstream-auth allow to pull it?"
        super().__init__(name, f"pulling {repository} is denied ({why}); {hint}")


class UpstreamLimited(UpstreamError):
    """The upstream limits the rate of requests; *retry_after* is in seconds."""

    def __init__(self, name: str, retry_after: float) -> None:
        self.retry_after = max(math.ceil(retry_after), 1)
        super().__init__(
            name, f"it limits the rate of requests; it is asked again in {self.retry_after} s"
        )


class UpstreamFetching(UpstreamError):
    """Layers of *repository* are on their way here; *retry_after* is in seconds."""

    retry_after = 1

    def __init__(self, repository: str) -> None:
        super().__init__(repository, "layers of the image are on their way here; ask again")
