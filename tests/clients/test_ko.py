"""ko: builds a Go program into an image on top of one in the registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.conftest import Tool, Tools
from tests.support.commands import Commands
from tests.support.requirements import cache, need


@pytest.fixture
def ko(tool: Tools, address: str, pushed: str) -> Tool:
    """ko, with a program to build."""
    need("go")
    binary = tool(
        "ko",
        KO_DOCKER_REPO=f"{address}/ko",
        GOFLAGS="-buildvcs=false",
        GOTOOLCHAIN="local",
        GOCACHE=str(cache() / "go-build"),
    )
    (binary.folder / "go.mod").write_text("module example.com/hello\n\ngo 1.22\n")
    (binary.folder / "main.go").write_text("package main\n\nfunc main() { println(1) }\n")
    (binary.folder / ".ko.yaml").write_text(f"defaultBaseImage: {pushed}\n")
    return binary


def test_docket_pulls_what_ko_built(
    ko: Tool, tool: Tools, address: str, host: Callable[[str], Commands], tmp_path: Path
) -> None:
    """The base's layers are mounted, the SBOM is beside the image, and a pull brings all layers."""
    built = ko("build", "--bare", "--tags", "1.0", "--sbom", "spdx", ".")
    crane = tool("crane")
    manifest = json.loads(crane("manifest", built))
    pulled = host("a")("pull", "ko:1.0", "--layers-only")
    assert len(pulled["layers"]) == len(manifest["layers"])
    assert built.rpartition("@")[2] == crane("digest", f"{address}/ko:1.0")
    digest = built.rpartition(":")[2]
    assert f"sha256-{digest}.sbom" in crane("ls", f"{address}/ko").split()
