"""ORAS: artifacts, referrers, copies with referrers, deletes."""

from __future__ import annotations

import json

import pytest

from tests.clients.conftest import ClientFailed, Tool, Tools

_SBOM = "application/spdx+json"
_PLAIN = "--plain-http"


@pytest.fixture
def oras(tool: Tools) -> Tool:
    """oras, with a file to push."""
    binary = tool("oras")
    (binary.folder / "notes.txt").write_text("hello\n")
    return binary


def _attach(oras: Tool, subject: str) -> str:
    options = ("--artifact-type", _SBOM, "--format", "json")
    return str(
        json.loads(oras("attach", _PLAIN, subject, "notes.txt:text/plain", *options))["digest"]
    )


def _referrers(oras: Tool, subject: str, *options: str) -> list[str]:
    referrers = json.loads(oras("discover", _PLAIN, subject, "--format", "json", *options))
    return [row["digest"] for row in referrers["referrers"]]


def test_oras_pushes_and_pulls_files(oras: Tool, address: str) -> None:
    """Files that are no image come back as they were."""
    name = f"{address}/files:1"
    oras("push", _PLAIN, name, "notes.txt:text/plain", "--artifact-type", "application/vnd.notes")
    oras("pull", _PLAIN, name, "-o", "pulled")
    assert (oras.folder / "pulled" / "notes.txt").read_text() == "hello\n"
    oras("tag", _PLAIN, name, "latest")
    assert oras("repo", "tags", _PLAIN, f"{address}/files").split() == ["1", "latest"]
    assert oras("repo", "ls", _PLAIN, address) == "files"


def test_oras_discovers_what_it_attached(oras: Tool, pushed: str) -> None:
    """Referrers are listed at once, filtered by type, and gone once they are deleted."""
    assert _referrers(oras, pushed) == []
    sbom = _attach(oras, pushed)
    assert _referrers(oras, pushed) == [sbom]
    assert _referrers(oras, pushed, "--artifact-type", _SBOM) == [sbom]
    assert _referrers(oras, pushed, "--artifact-type", "application/other") == []
    repository = pushed.rpartition(":")[0]
    oras("manifest", "delete", _PLAIN, "-f", f"{repository}@{sbom}")
    assert _referrers(oras, pushed) == []


def test_oras_copies_an_image_with_its_referrers(oras: Tool, pushed: str, address: str) -> None:
    """To another repository, and to a layout on disk and back."""
    sbom = _attach(oras, pushed)
    copy, back = f"{address}/copy/app:1.0", f"{address}/back/app:1.0"
    oras("cp", "-r", "--from-plain-http", "--to-plain-http", pushed, copy)
    assert _referrers(oras, copy) == [sbom]
    oras("cp", "-r", "--from-plain-http", "--to-oci-layout", copy, "layout:1.0")
    oras("cp", "-r", "--from-oci-layout", "--to-plain-http", "layout:1.0", back)
    assert _referrers(oras, back) == [sbom]
    assert oras("resolve", _PLAIN, back) == oras("resolve", _PLAIN, pushed)


def test_oras_deletes_a_manifest(oras: Tool, address: str) -> None:
    """The tag goes with it."""
    name = f"{address}/files:1"
    oras("push", _PLAIN, name, "notes.txt:text/plain")
    oras("manifest", "delete", _PLAIN, "-f", name)
    with pytest.raises(ClientFailed, match="not found"):
        oras("resolve", _PLAIN, name)


def test_oras_moves_single_blobs(oras: Tool, address: str) -> None:
    """A blob is pushed, fetched and deleted by its digest."""
    pushed = json.loads(
        oras("blob", "push", _PLAIN, "--descriptor", f"{address}/files", "notes.txt")
    )
    name = f"{address}/files@{pushed['digest']}"
    assert oras("blob", "fetch", _PLAIN, "--output", "-", name) == "hello"
    oras("blob", "delete", _PLAIN, "-f", name)
    with pytest.raises(ClientFailed):
        oras("blob", "fetch", _PLAIN, "--output", "-", name)
