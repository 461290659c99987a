"""A full disk: a clear answer, nothing left behind, and work goes on once there is space."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import CommandFailed, Commands, registry
from tests.support.disks import tiny_disk
from tests.support.images import TinyImage, release

LARGE = release("large:1.0", [("large", 40_000_000)])
SMALL = release("small:1.0", [("small", 400_000)])


def push(host: Commands, image: TinyImage, folder: Path) -> object:
    """Push *image* from an archive."""
    archive = image.archive(folder / f"{image.name.partition(':')[0]}.tar")
    return host("push", image.name, "--archive", archive)["uploaded"]


def test_registry_on_a_full_disk(tmp_path: Path) -> None:
    """507 with words that help; the failed push leaves nothing, and smaller ones go on."""
    with tiny_disk(15) as disk, registry(disk / "r") as url:
        host = Commands(url, tmp_path / "a")
        with pytest.raises(CommandFailed) as caught:
            push(host, LARGE, tmp_path)
        assert caught.value.code == 5
        assert "507" in caught.value.message
        assert "no space left" in caught.value.message
        assert len(caught.value.message.splitlines()) == 1
        assert not list((disk / "r" / "uploads").iterdir())
        assert push(host, SMALL, tmp_path)
        assert host("rm", SMALL.name)
        assert host("gc")["pinned_manifests"] == 1
        assert push(host, SMALL, tmp_path) == 0


@pytest.mark.parametrize("way", [(), ("--no-swarm",)])
def test_host_on_a_full_disk(tmp_path: Path, way: tuple[str, ...]) -> None:
    """A pull that doesn't fit ends in one line that says where space is missing."""
    with tiny_disk(8) as disk, registry(tmp_path / "r") as url:
        push(Commands(url, tmp_path / "build"), LARGE, tmp_path)
        push(Commands(url, tmp_path / "build"), SMALL, tmp_path)
        host = Commands(url, disk / "h")
        with pytest.raises(CommandFailed) as caught:
            host("pull", LARGE.name, "--layers-only", *way)
        lines = [line for line in caught.value.message.splitlines() if line.startswith("docket:")]
        assert len(lines) == 1
        assert "no space left" in lines[0].lower()
        assert "Traceback" not in caught.value.message
