"""What an engine holds, its agent holds too, and each blob is on the disk once."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from docket.agent.content.stores import HostPaths, content_stores
from docket.errors import InvalidOption
from docket.oci.digest import Digest
from tests.support.agent_process import AgentProcess, agent_process
from tests.support.commands import Commands, registry
from tests.support.engine_setup import pull, remove_all, run
from tests.support.engines import docker_registry
from tests.support.images import TinyImage, image_of, layer_tar
from tests.support.newer_docker import newer_dockerd
from tests.support.processes import wait_until
from tests.support.requirements import need

MB = 1_000_000
CONTENT = "io.containerd.content.v1.content"
IMAGE = image_of([layer_tar("one", size=MB), layer_tar("two", size=MB)], "app:1.0")


@pytest.fixture
def docket(tmp_path: Path) -> Iterator[Commands]:
    """Commands against a registry that has app:1.0 with gzip layers."""
    with registry(tmp_path / "registry") as url:
        commands = Commands(url, tmp_path / "host")
        push(commands, tmp_path, "app:1.0")
        yield commands


def push(docket: Commands, place: Path, name: str) -> None:
    """Push the image as *name*, with the bytes that the engine has."""
    need("skopeo")
    layout = IMAGE.oci_layout(place / "layout")
    target = f"docker://{urlsplit(docket.url).netloc}/{name}"
    run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:app:1.0", target)


class Content:
    """A content store as containerd writes it: a file gets its name when it is whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = folder / "blobs/sha256"
        (folder / "ingest").mkdir(parents=True)

    def put(self, content: bytes) -> Path:
        """Commit a blob."""
        self.blobs.mkdir(parents=True, exist_ok=True)
        written = self.folder / "ingest/data"
        written.write_bytes(content)
        written.chmod(0o444)
        return written.rename(self.blobs / Digest.of(content).hex)

    def put_image(self, image: TinyImage) -> Digest:
        """Commit an image as a pull does: its manifest first; gives that one's digest."""
        described, blobs = image.blobs("gzip")
        manifest = blobs.pop(described.digest.layout_path)
        for content in (manifest, *blobs.values()):
            self.put(content)
        return described.digest


@pytest.fixture
def content(tmp_path: Path) -> Content:
    """An engine's content store, in which nothing has been."""
    return Content(tmp_path / "engine" / CONTENT)


def waited(agent: AgentProcess, ready: Callable[[], bool]) -> None:
    """Wait until *ready* says so."""
    wait_until(ready, process=agent.process, log=agent.log, within=30)


def held(docket: Commands) -> int:
    """How many images the registry knows that its only host holds."""
    return int(next((row["held"] for row in docket("hosts")["hosts"]), 0))


def used(*folders: Path) -> int:
    """Bytes of the disk that files below *folders* take, each file once."""
    found = [path.lstat() for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sum({status.st_ino: status.st_blocks * 512 for status in found}.values())


def test_an_image_that_only_the_engine_has_counts_as_held(
    docket: Commands, content: Content, tmp_path: Path
) -> None:
    """Images from before the agent and those that come later; none of it travels in a deploy.

    The engine's file stays where it is, and what the engine drops the agent drops.
    """
    later = image_of([layer_tar("later", size=MB)], "later:1.0")
    content.put_image(IMAGE)
    files = {path: path.stat().st_ino for path in content.blobs.iterdir()}
    options = ("--content-store", content.folder)
    with agent_process(docket.url, tmp_path / "agent", *map(str, options)) as agent:
        waited(agent, lambda: held(docket) == 1)
        number = content.put_image(later)
        waited(agent, lambda: held(docket) == 2)
        lines = docket.plain("--json", "deploy", "app:1.0", "--all", "--deadline", "60s")
        status = json.loads(lines.splitlines()[-1])
        assert status["from_held"] == status["bytes_total"] > 0
        assert {path: path.stat().st_ino for path in files} == files
        layers = [path.stat() for path in files if path.stat().st_size > MB // 2]
        assert [status.st_nlink > 1 for status in layers] == [True, True]
        (content.blobs / number.hex).unlink()
        waited(agent, lambda: held(docket) == 1)


def test_a_damaged_blob_of_the_engine_is_not_taken(
    docket: Commands, content: Content, tmp_path: Path
) -> None:
    """The image isn't held, until the engine has the right bytes."""
    layer = gzip.compress(IMAGE.layers[0], mtime=0)
    content.put_image(IMAGE)
    path = content.blobs / Digest.of(layer).hex
    path.unlink()
    content.put(b"x" * len(layer)).rename(path)
    with agent_process(docket.url, tmp_path / "agent", "--content-store", str(content.folder)) as a:
        waited(a, lambda: "damaged" in a.log.read_text())
        assert held(docket) == 0
        content.put(layer)
        waited(a, lambda: held(docket) == 1)
        assert a.pull("app", "1.0")


def test_files_of_an_engine_that_come_after_the_agent_s_are_one(
    docket: Commands, content: Content, tmp_path: Path
) -> None:
    """The engine's folder is not there before its first pull."""
    layer = gzip.compress(IMAGE.layers[0], mtime=0)
    with agent_process(docket.url, tmp_path / "agent", "--content-store", str(content.folder)) as a:
        a.pull("app", "1.0")
        path = content.put(layer)
        waited(a, lambda: path.stat().st_nlink > 1)
        assert used(content.blobs, a.location / "blobs") < 1.1 * used(a.location / "blobs")
        assert a.pull("app", "1.0")
    with agent_process(docket.url, tmp_path / "agent", "--content-store", "none") as again:
        assert again.pull("app", "1.0")


def test_the_content_stores_of_a_host(tmp_path: Path) -> None:
    """Roots that the engines' settings name count; what discards layers is warned of."""
    docker, containerd = tmp_path / "daemon.json", tmp_path / "config.toml"
    paths = HostPaths(docker, tmp_path / "docker", containerd, tmp_path / "containerd")
    assert content_stores("none", paths).folders == ()
    assert content_stores("auto", paths).folders == (
        tmp_path / f"docker/containerd/daemon/{CONTENT}/blobs/sha256",
        tmp_path / f"containerd/{CONTENT}/blobs/sha256",
    )
    docker.write_text(f'{{"data-root": "{tmp_path}/d"}}')
    containerd.write_text(
        f'version = 2\nroot = "{tmp_path}/c"\n'
        '[plugins."io.containerd.grpc.v1.cri".containerd]\ndiscard_unpacked_layers = true\n'
    )
    stores = content_stores("auto", paths)
    assert stores.folders[0].is_relative_to(tmp_path / "d")
    assert stores.folders[1].is_relative_to(tmp_path / "c")
    assert "discard_unpacked_layers" in stores.warnings[0]
    docker.write_text("{")
    containerd.write_text("=")
    assert content_stores("auto", paths).folders[0].is_relative_to(tmp_path / "docker")


def test_a_content_store_by_any_of_its_roots(tmp_path: Path) -> None:
    """Its own folder, containerd's root, or Docker's, where it may come later."""
    expected = [tmp_path / CONTENT, tmp_path / "containerd/daemon" / CONTENT]
    blobs = [folder / "blobs/sha256" for folder in expected]
    assert list(content_stores(str(tmp_path)).folders) == blobs
    expected[1].mkdir(parents=True)
    assert content_stores(str(tmp_path)).folders == (blobs[1],)
    assert content_stores(str(expected[1])).folders == (blobs[1],)
    with pytest.raises(InvalidOption, match="content store"):
        content_stores(str(tmp_path / "none"))


def test_docker_and_its_agent_store_each_blob_once(docket: Commands, tmp_path: Path) -> None:
    """At most 1.02 times what Docker takes alone, whichever of the two has a blob first.

    An image that Docker pulled from another registry is held too, and what the engine's gc removes
    stays with the agent.
    """
    need("skopeo")
    before = tmp_path / "alone"
    name = f"{urlsplit(docket.url).netloc}/app:1.0"
    with newer_dockerd(before, containerd_store=True) as engine:
        pull(engine, name)
    alone = used(before)
    root = tmp_path / "docker"
    layout = image_of([layer_tar("other", size=MB)], "other:1.0").oci_layout(tmp_path / "layout")
    with (
        docker_registry(tmp_path / "upstream") as upstream,
        newer_dockerd(root, containerd_store=True) as engine,
        agent_process(
            docket.url, tmp_path / "agent", "--content-store", str(root / "docker")
        ) as agent,
    ):
        pull(engine, f"{urlsplit(agent.url).netloc}/app:1.0")
        blobs = root / "docker/containerd/daemon" / CONTENT / "blobs/sha256"
        layers = [blobs / Digest.of(gzip.compress(x, mtime=0)).hex for x in IMAGE.layers]
        data = (agent.location / "blobs", agent.location / "incoming", agent.location / "swarm")
        waited(agent, lambda: used(root, *data) <= 1.02 * alone)
        assert all(path.stat().st_nlink > 1 for path in layers)
        other = f"docker://{upstream.address}/team/other:1"
        run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:other:1.0", other)
        pull(engine, f"{upstream.address}/team/other:1")
        waited(agent, lambda: held(docket) == 2)
        remove_all(engine)
        waited(agent, lambda: not any(path.exists() for path in layers))
        assert agent.pull("app", "1.0")
