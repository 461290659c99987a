"""Digests: what spells one, and what does not (OCI image 1.1, descriptor § digests)."""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docket.errors import InvalidDigest
from docket.oci.digest import Digest, new_hash

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(HEX)
def test_text_round_trip(hexdigits: str) -> None:
    """OCI image § digests: ``algorithm:encoded`` is the whole of a digest, both ways."""
    text = f"sha256:{hexdigits}"
    assert str(Digest.parse(text)) == text
    assert Digest.parse(text) == Digest.sha256(hexdigits)


@given(st.text(max_size=200))
def test_any_other_text_is_refused(text: str) -> None:
    """Invariant 5: whatever doesn't spell a digest is refused at the edge, and only so."""
    with suppress(InvalidDigest):
        assert str(Digest.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "a" * 64,
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "a" * 64 + "\n",
        "sha256:" + "g" * 64,
        "sha256:" + "../" * 21 + "a",
        "sha256:" + "٣" * 64,
        "SHA256:" + "a" * 64,
        "sha512:" + "a" * 64,
        "md5:" + "a" * 32,
        "sha256:sha256:" + "a" * 57,
    ],
)
def test_bad_spellings(text: str) -> None:
    """OCI image § registered algorithms: lower-case hex of the algorithm's length, no more."""
    with pytest.raises(InvalidDigest):
        Digest.parse(text)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_digest_of_content(algorithm: str, tmp_path: Path) -> None:
    """OCI image § registered algorithms: SHA-256 and SHA-512, of bytes, streams and files alike."""
    content = bytes(range(256)) * 9000
    expected = f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
    (tmp_path / "blob").write_bytes(content)
    assert str(Digest.of(content, algorithm=algorithm)) == expected
    assert str(Digest.of_stream(io.BytesIO(content), algorithm=algorithm)) == expected
    assert str(Digest.of_file(tmp_path / "blob", algorithm=algorithm)) == expected


def test_unknown_algorithm_has_no_running_hash() -> None:
    """A hash that no digest may name can't be begun."""
    with pytest.raises(InvalidDigest):
        new_hash("md5")


def test_names_of_a_digest() -> None:
    """OCI image layout § blobs: the path is made of algorithm and hex alone."""
    digest = Digest.of(b"")
    assert digest.short == "e3b0c44298fc"
    assert digest.layout_path == f"blobs/sha256/{digest.hex}"


def test_digests_are_values() -> None:
    """Equal digests are one key, and digests sort by their text."""
    first, two = Digest.of(b"1"), Digest.of(b"2")
    assert {first: 1}[Digest.parse(str(first))] == 1
    assert sorted([first, two]) == sorted([first, two], key=str)
