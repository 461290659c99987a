"""Names of images: ``repository[:tag][@digest]`` (OCI distribution 1.1 § pulling manifests)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from docket.errors import InvalidDigest, InvalidReference
from docket.oci.digest import Digest

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")

MAX_REPOSITORY = 255
"""Characters in a repository name; other registries and engines stop here too."""

DEFAULT_TAG = "latest"


def is_repository(text: str) -> bool:
    """Whether *text* is a legal repository name."""
    return len(text) <= MAX_REPOSITORY and _REPOSITORY.match(text) is not None


def is_tag(text: str) -> bool:
    """Whether *text* is a legal tag."""
    return _TAG.match(text) is not None


def parse_repository(text: str) -> str:
    """*text*, when it is a legal repository name. Raises `InvalidReference`."""
    if not is_repository(text):
        raise InvalidReference(
            text, "a repository is lower-case letters and digits, parted by . _ - or /"
        )
    return text


def parse_target(text: str) -> str | Digest:
    """The tag or digest that *text* spells. Raises `InvalidReference` or `InvalidDigest`."""
    if ":" in text:
        return Digest.parse(text)
    if not is_tag(text):
        raise InvalidReference(text, "a tag is up to 128 letters, digits, _ . and -")
    return text


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository and the tag or digest in it; `str()` gives ``name:tag`` or ``name@digest``.

    *tag_beside* is the tag of ``name:tag@digest``: the digest chooses the image, engines and
    people see both.
    """

    repository: str
    target: str | Digest
    tag_beside: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The reference that *text* spells; ``:latest`` when it has no tag.

        With both a tag and a digest the digest counts, and the tag is kept. Raises
        `InvalidReference`.
        """
        name, at, digest = text.partition("@")
        head, slash, last = name.rpartition("/")
        last, colon, tag = last.partition(":")
        if ":" in head:
            raise InvalidReference(
                text, "give the registry's address with -h and -p, not in the name"
            )
        if colon and not is_tag(tag):
            raise InvalidReference(text, "a tag is up to 128 letters, digits, _ . and -")
        repository = parse_repository(f"{head}{slash}{last}")
        if not at:
            return cls(repository, tag or DEFAULT_TAG)
        try:
            return cls(repository, Digest.parse(digest), tag)
        except InvalidDigest as error:
            raise InvalidReference(text, str(error)) from error

    @property
    def tag(self) -> str | None:
        """The tag, or None when this names a digest."""
        return self.target if isinstance(self.target, str) else None

    @property
    def given_tag(self) -> str | None:
        """The tag, also one beside a digest; None when there is only a digest."""
        return self.tag or self.tag_beside or None

    @property
    def tagged_name(self) -> str | None:
        """``name:tag``, the name that an engine shows; None when there is only a digest."""
        return f"{self.repository}:{self.given_tag}" if self.given_tag else None

    def __str__(self) -> str:
        name = self.tagged_name or self.repository
        return name if isinstance(self.target, str) else f"{name}@{self.target}"
