"""References: repository names, tags and digests (OCI distribution 1.1 § pulling manifests)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docket.errors import InvalidDigest, InvalidReference
from docket.oci.digest import Digest
from docket.oci.reference import (
    MAX_REPOSITORY,
    Reference,
    is_repository,
    is_tag,
    parse_repository,
    parse_target,
)

COMPONENTS = st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*", fullmatch=True)
REPOSITORIES = (
    st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join).filter(lambda s: len(s) <= 255)
)
TAGS = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True)
DIGESTS = st.binary(max_size=8).map(Digest.of)


@given(REPOSITORIES, TAGS | DIGESTS)
def test_text_round_trip(repository: str, target: str | Digest) -> None:
    """OCI distribution § pulling manifests: every legal name and target survives its spelling."""
    reference = Reference(repository, target)
    assert Reference.parse(str(reference)) == reference
    assert parse_target(str(target)) == target


@given(st.text(max_size=300))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """Invariant 5: what `parse` lets through consists of legal parts alone."""
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert is_repository(reference.repository)
    assert isinstance(reference.target, Digest) or is_tag(reference.target)
    assert ".." not in reference.repository.split("/")


@given(REPOSITORIES)
def test_a_bare_name_means_latest(repository: str) -> None:
    """As engines read it: a name without tag or digest is the tag ``latest``."""
    assert Reference.parse(repository) == Reference(repository, "latest")


def test_a_digest_outranks_a_tag() -> None:
    """With ``name:tag@digest`` the digest chooses the image, and the tag is kept beside it."""
    digest = Digest.of(b"x")
    reference = Reference.parse(f"library/app:1.0@{digest}")
    assert reference == Reference("library/app", digest)
    assert reference.tag is None
    assert reference.given_tag == "1.0"
    assert reference.tagged_name == "library/app:1.0"
    assert str(reference) == f"library/app:1.0@{digest}"
    assert Reference.parse(str(reference)) == reference


def test_a_digest_alone_has_no_tag() -> None:
    """``name@digest`` gives an engine no name to show."""
    reference = Reference.parse(f"app@{Digest.of(b'x')}")
    assert (reference.given_tag, reference.tagged_name) == (None, None)
    assert str(reference) == f"app@{Digest.of(b'x')}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":tag",
        "@",
        "App",
        "a//b",
        "/a",
        "a/",
        "a..b",
        "a___b",
        "-a",
        "a-",
        "../a",
        "a/../b",
        "a b",
        "a\n",
        "a\0b",
        "ä",
        "a:",
        "a:.tag",
        "a:-tag",
        "a:" + "t" * 129,
        "localhost:5000/app",
        "app@sha256:12",
        "app@",
        "a" * (MAX_REPOSITORY + 1),
    ],
)
def test_bad_names(text: str) -> None:
    """OCI distribution § pulling manifests: the grammar of names and tags is kept to the letter."""
    with pytest.raises(InvalidReference):
        Reference.parse(text)


def test_the_longest_name_is_legal() -> None:
    """Names have up to 255 characters, tags up to 128."""
    assert parse_repository("a" * MAX_REPOSITORY) == "a" * MAX_REPOSITORY
    assert Reference.parse("a:" + "t" * 128).tag == "t" * 128


def test_targets() -> None:
    """A colon makes a target a digest, and a bad digest is no tag."""
    with pytest.raises(InvalidDigest):
        parse_target("sha256:1")
    with pytest.raises(InvalidReference):
        parse_target("../etc/passwd")
