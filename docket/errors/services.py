"""Errors of what docket works with: registries, engines, peers, standard output."""

from __future__ import annotations

from collections.abc import Sequence

from docket.errors.base import DocketError


class RegistryError(DocketError):
    """Talking to a registry failed."""


class RegistryUnreachable(RegistryError):
    """Nothing answers at the registry's address."""

    def __init__(self, url: str, why: str) -> None:
        self.url, self.why = url, why
        super().__init__(
            f"no registry answers at {url} ({why}); check -h and -p, or start docket registry"
        )


class RegistryRefused(RegistryError):
    """The registry answered with an error (OCI distribution 1.1 § error codes)."""

    def __init__(self, what: str, *, status: int, code: str = "", message: str = "") -> None:
        self.status = status
        self.code = code
        said = ": ".join(part for part in (code, message) if part) or "no reason given"
        super().__init__(f"the registry refused {what} with {status} ({said})")


class EngineError(DocketError):
    """The container engine failed or refused."""


class EngineUnreachable(EngineError):
    """No container engine answers at its socket."""

    def __init__(self, host: str, why: str) -> None:
        self.host = host
        super().__init__(
            f"no container engine answers at {host} ({why}); start it or set DOCKER_HOST, "
            "or use --archive / --output / --layers-only"
        )


class EngineImageUnknown(EngineError):
    """The container engine has no such image."""

    def __init__(self, name: str, names_elsewhere: Sequence[str] = ()) -> None:
        self.name = name
        self.names_elsewhere = names_elsewhere
        hint = "see docker images"
        if names_elsewhere:
            hint = f"to push {names_elsewhere[0]}, run: docker tag {names_elsewhere[0]} {name}"
        super().__init__(f"the container engine has no image {name}; {hint}")


class SwarmError(DocketError):
    """The BitTorrent session failed."""


class OutputError(DocketError):
    """The result can't be written to standard output; what it reports is done."""

    def __init__(self, why: str) -> None:
        super().__init__(f"can't write the result to standard output: {why}")


class LayerFailed(DocketError):
    """A layer was on its way to this host, and does not come."""

    def __init__(self, digest: object, error: Exception) -> None:
        self.digest = digest
        super().__init__(f"layer {digest} could not be fetched: {error}")
