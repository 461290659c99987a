"""crane: push, pull, copy, tag, list, append, flatten and delete."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.clients.conftest import ClientFailed, Tools
from tests.support.images import TinyImage


def test_crane_pushes_what_it_pulls(
    tool: Tools, address: str, image: TinyImage, tmp_path: Path
) -> None:
    """An archive comes back with the same config and layers, and validates."""
    crane = tool("crane")
    (tmp_path / "in.tar").write_bytes(image.docker_save_legacy())
    name = f"{address}/team/app:1.0"
    reference = crane("push", tmp_path / "in.tar", name)
    assert reference.endswith(crane("digest", name))
    assert crane("config", name).encode() == image.config
    assert (
        "PASS" in crane("validate", "--remote", name) or crane("validate", "--remote", name) == ""
    )
    crane("pull", name, tmp_path / "out.tar")
    with tarfile.open(tmp_path / "out.tar") as archive:
        member = archive.extractfile("manifest.json")
        assert member
        (row,) = json.load(member)
    assert len(row["Layers"]) == len(image.layers)


def test_crane_reads_what_docket_pushed(tool: Tools, pushed: str, image: TinyImage) -> None:
    """The file system of zstd layers is that of the image."""
    crane = tool("crane")
    assert crane("config", pushed).encode() == image.config
    manifest = json.loads(crane("manifest", pushed))
    assert all(layer["mediaType"].endswith("+zstd") for layer in manifest["layers"])
    names = []
    for layer in image.layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
            names += archive.getnames()
    crane("export", pushed, "files.tar")
    with tarfile.open(crane.folder / "files.tar") as files:
        assert sorted(files.getnames()) == sorted(names)


def test_crane_copies_tags_and_lists(tool: Tools, pushed: str, address: str) -> None:
    """Copies are the same manifest; lists have every tag and repository."""
    crane = tool("crane")
    crane("copy", pushed, f"{address}/other/app:2")
    crane("tag", pushed, "stable")
    assert crane("digest", f"{address}/other/app:2") == crane("digest", pushed)
    assert crane("ls", f"{address}/team/app").split() == ["1.0", "stable"]
    assert crane("catalog", address).split() == ["other/app", "team/app"]


def test_crane_makes_images_of_others(
    tool: Tools, pushed: str, address: str, image: TinyImage, tmp_path: Path
) -> None:
    """append mounts the base's layers; mutate and flatten push an image that can be read."""
    crane = tool("crane")
    (tmp_path / "more.tar").write_bytes(image.layers[0])
    longer, labelled, flat = (f"{address}/team/{name}:1" for name in ("longer", "labelled", "flat"))
    crane("append", "-b", pushed, "-f", tmp_path / "more.tar", "-t", longer)
    assert len(json.loads(crane("manifest", longer))["layers"]) == len(image.layers) + 1
    crane("mutate", pushed, "--label", "a=b", "-t", labelled)
    assert json.loads(crane("config", labelled))["config"]["Labels"] == {"a": "b"}
    crane("flatten", pushed, "-t", flat)
    assert len(json.loads(crane("manifest", flat))["layers"]) == 1


def test_crane_deletes_a_tag_or_a_manifest(tool: Tools, pushed: str, address: str) -> None:
    """A tag goes alone; a digest goes with all its tags."""
    crane = tool("crane")
    crane("tag", pushed, "stable")
    digest = crane("digest", pushed)
    crane("delete", f"{address}/team/app:stable")
    assert crane("ls", f"{address}/team/app") == "1.0"
    crane("delete", f"{address}/team/app@{digest}")
    with pytest.raises(ClientFailed, match="MANIFEST_UNKNOWN"):
        crane("manifest", pushed)
