"""regctl: copies, artifacts with subjects, indexes, tag deletes, archives."""

from __future__ import annotations

import json

import pytest

from tests.clients.conftest import Tool, Tools


@pytest.fixture
def regctl(tool: Tools, address: str) -> Tool:
    """regctl, which is to use plain HTTP."""
    binary = tool("regctl")
    binary("registry", "set", "--tls", "disabled", address)
    return binary


def test_regctl_copies_and_lists(regctl: Tool, pushed: str, address: str) -> None:
    """A copy is the same manifest; lists have every tag and repository."""
    regctl("image", "copy", pushed, f"{address}/copy/app:1")
    assert regctl("image", "digest", f"{address}/copy/app:1") == regctl("image", "digest", pushed)
    assert regctl("tag", "ls", f"{address}/copy/app") == "1"
    assert regctl("repo", "ls", address).split() == ["copy/app", "team/app"]


def test_regctl_attaches_an_artifact(regctl: Tool, pushed: str) -> None:
    """It is in the list of the image's referrers, and its content comes back."""
    kind = "application/example.sbom"
    options = ("--artifact-type", kind, "-m", "application/json")
    regctl("artifact", "put", "--subject", pushed, *options, stdin="sbom")
    rows = json.loads(regctl("artifact", "list", pushed, "--format", "{{json .}}"))
    assert [row["artifactType"] for row in rows["descriptors"]] == [kind]
    assert regctl("artifact", "get", "--subject", pushed) == "sbom"
    assert kind in regctl("artifact", "tree", pushed)


def test_regctl_deletes_a_tag_and_a_manifest(regctl: Tool, pushed: str, address: str) -> None:
    """The tag goes alone: the other one stays."""
    regctl("image", "copy", pushed, f"{address}/team/app:stable")
    regctl("tag", "rm", pushed)
    assert regctl("tag", "ls", f"{address}/team/app") == "stable"
    regctl("manifest", "delete", "--force-tag-dereference", f"{address}/team/app:stable")
    assert regctl("tag", "ls", f"{address}/team/app") == ""


def test_regctl_exports_imports_and_recompresses(regctl: Tool, pushed: str, address: str) -> None:
    """An image goes through an archive unchanged, and its layers to another compression."""
    regctl("image", "export", pushed, "image.tar")
    regctl("image", "import", f"{address}/imported:1", "image.tar")
    assert regctl("image", "digest", f"{address}/imported:1") == regctl("image", "digest", pushed)
    packed = f"{address}/team/packed:1"
    regctl("image", "mod", pushed, "--create", packed, "--layer-compress", "gzip")
    layers = json.loads(regctl("manifest", "get", packed, "--format", "raw-body"))["layers"]
    assert all(layer["mediaType"].endswith("gzip") for layer in layers)


def test_regctl_makes_an_index(regctl: Tool, pushed: str, address: str) -> None:
    """Its entry is the image, found by platform."""
    name = f"{address}/team/all:1"
    regctl("index", "create", name, "--ref", pushed)
    rows = json.loads(regctl("manifest", "get", name, "--format", "raw-body"))["manifests"]
    assert [row["digest"] for row in rows] == [regctl("image", "digest", pushed)]
