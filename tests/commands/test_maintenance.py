"""gc with a retention policy, and fsck, as users and scripts meet them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from docket.oci.digest import Digest
from tests.support.commands import CommandFailed, Commands
from tests.support.images import TinyImage, release

Host = Callable[[str], Commands]

FIRST, SECOND, THIRD = (
    release(f"team/app:1.{number}", [("base", 600_000), (f"app-{number}", 90_000)])
    for number in range(3)
)


def pushed(host: Commands, image: TinyImage, folder: Path) -> dict[str, object]:
    """Push *image* from an archive."""
    archive = image.archive(folder / f"{image.name.replace('/', '-')}.tar")
    return host("push", image.name, "--archive", archive)


def failure(host: Commands, *arguments: object) -> CommandFailed:
    """How a command fails."""
    with pytest.raises(CommandFailed) as caught:
        host(*arguments)
    return caught.value


def ended(host: Commands, code: int, *arguments: object) -> str:
    """What a command says that ends with *code*."""
    with pytest.raises(CommandFailed) as caught:
        host.plain(*arguments)
    assert caught.value.code == code, caught.value.message
    return caught.value.output


def rot(store: Path, digest: str) -> None:
    """Change a byte in the middle of a blob's file."""
    named = Digest.parse(digest)
    path = store / "blobs" / named.algorithm / named.hex[:2] / named.hex
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_gc_keeps_releases(host: Host, tmp_path: Path) -> None:
    """--keep leaves the newest releases and what is protected; a dry run says so before."""
    for image in (FIRST, SECOND, THIRD):
        pushed(host("build"), image, tmp_path)
    words = ("gc", "--keep", "1", "--protect", "team/app:1.0", "--grace", "0s")
    planned = host("build")(*words, "--dry-run")
    assert (planned["tags"], planned["kept_tags"]) == (["team/app:1.1"], 2)
    assert host("build")(*words, "--older-than", "1h")["tags"] == [], "it is younger"
    assert "removed 1 tags: team/app:1.1" in host("build").plain(*words).decode()
    assert [row["tag"] for row in host("a")("images")["images"]] == ["1.0", "1.2"]
    for wrong in ("1y", "-1", "soon"):
        ended(host("build"), 2, "gc", "--grace", wrong)


def test_a_host_keeps_releases_to_roll_back_to(host: Host, tmp_path: Path) -> None:
    """gc --local frees a host's old releases; a rollback to a kept one moves nothing."""
    for image in (FIRST, SECOND, THIRD):
        pushed(host("build"), image, tmp_path)
        host("a")("pull", image.name, "--layers-only")
    report = host("a")("gc", "--local", "--keep", "2", "--grace", "0")
    own = [layer["size"] for layer in host("a")("inspect", FIRST.name)["layers"]][1]
    assert report["tags"] == ["team/app:1.0"]
    assert report["freed"] > own
    assert host("a")("pull", SECOND.name, "--layers-only")["payload"] == {"swarm": 0, "http": 0}
    moved = host("a")("pull", FIRST.name, "--layers-only")["payload"]
    assert moved["swarm"] + moved["http"] >= own


def test_fsck_of_a_registry_that_serves(host: Host, tmp_path: Path) -> None:
    """Rot is found, told, out of reach, and healed by the next push; exit codes say so."""
    pushed(host("build"), FIRST, tmp_path)
    assert "no damage" in host("build").plain("fsck").decode()
    layer = host("a")("inspect", FIRST.name)["layers"][1]["digest"]
    rot(tmp_path / "registry", layer)
    assert host("build")("fsck")["findings"] == []
    assert host("build")("fsck", "--read-data=2/2")["read_blobs"] < 4
    report = ended(host("build"), 8, "--json", "fsck", "--read-data")
    assert f'"quarantined":["{layer}"]' in report
    assert ended(host("build"), 8, "fsck").count("incomplete") == 1
    # without peers and without the blob there is nothing to pull
    assert failure(host("a"), "pull", FIRST.name, "--layers-only").code in (3, 5)
    pushed(host("build"), FIRST, tmp_path)
    assert host("build")("fsck", "--read-data")["findings"] == []
    assert host("a")("pull", FIRST.name, "--layers-only")["payload"]["swarm"] > 0


def test_fsck_of_a_hosts_store(host: Host, tmp_path: Path) -> None:
    """--local checks the host's own store; what is wrong comes back from the swarm."""
    pushed(host("build"), FIRST, tmp_path)
    host("a")("pull", FIRST.name, "--layers-only")
    layer = host("a")("inspect", FIRST.name)["layers"][1]
    rot(host("a").location, layer["digest"])
    ended(host("a"), 8, "fsck", "--local", "--read-data")
    again = host("a")("pull", FIRST.name, "--layers-only")["payload"]
    assert again["swarm"] >= layer["size"]
    assert host("a")("fsck", "--local", "--read-data")["findings"] == []


def test_rebuilding_a_lost_index(host: Host, tmp_path: Path) -> None:
    """A host whose index is lost is told what to do, and has its images after it."""
    pushed(host("build"), FIRST, tmp_path)
    host("a")("pull", FIRST.name, "--layers-only")
    shutil.rmtree(host("a").location / "index")
    refused = failure(host("a"), "pull", FIRST.name, "--layers-only")
    assert (refused.code, "--rebuild-index" in refused.message) == (7, True)
    ended(host("build"), 2, "fsck", "--rebuild-index")
    assert host("a")("fsck", "--local", "--rebuild-index")["findings"] == []
    assert host("a")("pull", FIRST.name, "--layers-only")["payload"] == {"swarm": 0, "http": 0}
