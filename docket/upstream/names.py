"""Names of upstream registries, and of their images in this one.

An image is stored below its registry's name, as engines spell it: ``docker.io/library/nginx``. A
port's colon becomes ``_``, since a repository's name may not have one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from docket.errors import InvalidAddress, InvalidOption
from docket.oci.reference import is_repository
from docket.remote.address import PORTS, RegistryAddress

DOCKER_HUB = "docker.io"
_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
_HUB_URL = "https://registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Upstream:
    """A registry whose images are fetched: its *name* in front of images, *prefix* in this one."""

    name: str
    prefix: str
    address: RegistryAddress

    @classmethod
    def parse(cls, text: str) -> Upstream:
        """The registry that ``NAME`` or ``NAME=URL`` spells. Raises `InvalidOption`."""
        given, equals, url = text.partition("=")
        name = canonical_name(given)
        prefix = name.replace(":", "_")
        if "/" in name or not is_repository(prefix) or (equals and not url):
            raise InvalidOption(text, "give NAME or NAME=URL, such as ghcr.io=https://ghcr.io")
        if equals and "://" not in url:
            raise InvalidOption(text, "the URL begins with https:// or http://")
        url = url or (_HUB_URL if name == DOCKER_HUB else f"https://{name}")
        try:
            # a URL's own default: docket's port 8000 is for -h
            address = RegistryAddress.parse(url, PORTS.get(url.partition(":")[0]))
            return cls(name, prefix, address)
        except InvalidAddress as error:
            raise InvalidOption(given, str(error)) from error

    def repository(self, stored: str) -> str:
        """What the upstream calls the repository that is *stored* here."""
        return self._completed(stored.removeprefix(f"{self.prefix}/"))

    def stored(self, repository: str) -> str:
        """The name under which *repository*, which is below the prefix, is stored here."""
        return f"{self.prefix}/{self.repository(repository)}"

    def _completed(self, repository: str) -> str:
        """Docker Hub's own images are below ``library/``, which people leave out."""
        is_short = self.name == DOCKER_HUB and "/" not in repository
        return f"library/{repository}" if is_short else repository


def parse_upstreams(texts: Iterable[str]) -> tuple[Upstream, ...]:
    """All of *texts*; raises `InvalidOption`, also for a name that is given twice."""
    upstreams: dict[str, Upstream] = {}
    for text in texts:
        upstream = Upstream.parse(text)
        if upstream.prefix in upstreams:
            raise InvalidOption(text, f"{upstream.name} is given twice")
        upstreams[upstream.prefix] = upstream
    return tuple(upstreams.values())


def upstream_of(upstreams: Sequence[Upstream], repository: str) -> Upstream | None:
    """The upstream whose image *repository* is."""
    prefix, slash, _ = repository.partition("/")
    matching = (upstream for upstream in upstreams if upstream.prefix == prefix)
    return next(matching, None) if slash else None


def canonical_name(host: str) -> str:
    """How images are spelled that come from *host*."""
    name = host.strip().lower()
    return DOCKER_HUB if name in _HUB_NAMES else name
