"""Names of images as archives spell them, and the choice of an image by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from docket.archive.listing import ListedImage
from docket.errors import ImageNotInArchive, InvalidArchive

_DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
# podman's registry of images that were built here
_LOCAL = "localhost"
_NUMBER = re.compile(r"@([0-9]{1,5})\Z")
_ID = re.compile(r"(?:sha256:)?([0-9a-f]{12,64})\Z")
_MAX_NAMES_SHOWN = 50


@dataclass(frozen=True, slots=True)
class _Name:
    """A name in its parts; *registry* is empty for Docker Hub's and for a host's own."""

    registry: str
    repository: str
    tag: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> _Name:
        """The parts of any text; as engines read it, a first part with a dot is a registry."""
        name, _, digest = text.partition("@")
        registry = ""
        first, slash, after = name.partition("/")
        if slash and ("." in first or ":" in first or first == _LOCAL):
            registry, name = first, after
        head, slash, last = name.rpartition("/")
        last, _, tag = last.partition(":")
        repository = f"{head}{slash}{last}"
        if registry in _DOCKER_HUB or not registry:
            repository = repository.removeprefix("library/")
        registry = "" if registry in _DOCKER_HUB or registry == _LOCAL else registry
        return cls(registry, repository, tag or ("" if digest else "latest"), digest)

    @property
    def without_registry(self) -> tuple[str, str]:
        """The repository and tag."""
        return self.repository.removeprefix("library/"), self.tag

    def is_same(self, candidate: _Name) -> bool:
        """Whether both name one image, in whatever spelling."""
        return (self.registry, *self.without_registry) == (
            candidate.registry,
            *candidate.without_registry,
        )


def choose(listed: Sequence[ListedImage], name: str | None, *, must_match: bool) -> ListedImage:
    """The image called *name*: in full, without a registry, by its tag, digest, ID or ``@number``.

    The only image is taken under any name, unless it *must_match*. Raises `InvalidArchive` when
    there is none, `ImageNotInArchive` with the names that there are when the choice is open.
    """
    images = _merged(listed)
    if not images:
        raise InvalidArchive("the archive holds no image for this platform")
    if name is not None:
        for matches in _matchers(name, images):
            chosen = [image for image in images if matches(image)]
            if len(chosen) == 1:
                return chosen[0]
            if chosen:
                break  # a weaker match would only guess
    if len(images) == 1 and not must_match:
        return images[0]
    raise ImageNotInArchive(name or "an image without a name", _shown(images))


Matcher = Callable[[ListedImage], bool]


def _matchers(name: str, images: Sequence[ListedImage]) -> list[Matcher]:
    """Ways in which *name* may mean an image, the strictest first."""
    wanted = _Name.parse(name)
    matchers: list[Matcher] = [
        lambda image: name in image.names,
        lambda image: _has_digest(image, wanted),
        lambda image: any(wanted.is_same(_Name.parse(text)) for text in image.names),
        lambda image: any(
            wanted.without_registry == _Name.parse(text).without_registry for text in image.names
        ),
        # an OCI layout may name an image by its tag alone
        lambda image: wanted.tag in image.names,
        lambda image: _has_id(image, name),
    ]
    if number := _NUMBER.match(name):
        position = int(number[1])
        return [lambda image: images.index(image) == position]
    return matchers


def _has_digest(image: ListedImage, wanted: _Name) -> bool:
    digests = [str(digest) for digest in (image.digest, image.config_digest) if digest]
    named = [_Name.parse(name).digest for name in image.names]
    return bool(wanted.digest) and wanted.digest in (*digests, *named)


def _has_id(image: ListedImage, text: str) -> bool:
    """Whether *text* is the image's ID or manifest digest, or the beginning of one."""
    match = _ID.match(text)
    digests = [digest for digest in (image.digest, image.config_digest) if digest]
    return match is not None and any(digest.hex.startswith(match[1]) for digest in digests)


def _merged(listed: Sequence[ListedImage]) -> list[ListedImage]:
    """Each image once, though it may be listed under several names."""
    merged: dict[object, ListedImage] = {}
    for image in listed:
        key = (image.config, image.layers)
        merged[key] = merged[key].with_names(image.names) if key in merged else image
    return list(merged.values())


def _shown(images: Sequence[ListedImage]) -> list[str]:
    """All names, and the numbers of images without one."""
    names = [
        name for number, image in enumerate(images) for name in (image.names or (f"@{number}",))
    ]
    if more := names[_MAX_NAMES_SHOWN:]:
        names[_MAX_NAMES_SHOWN:] = [f"{len(more)} more"]
    return names
