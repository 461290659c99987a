"""The clients that people already have, against a real registry process, as it is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from docket.compression import GZIP, ZSTD
from tests.support.commands import Commands, registry
from tests.support.engines import dockerd
from tests.support.fault_proxy import relay
from tests.support.image_family.build import build
from tests.support.namespaces import namespaces
from tests.support.processes import short_folder, started
from tests.support.requirements import cache, need

Host = Callable[[str], Commands]

NAME = "app-node"


@pytest.fixture(scope="module")
def archive() -> Path:
    """A small image of real software, as a docker archive."""
    need("mmdebstrap", "npm")
    return build(cache() / "images", small=True, only=(f"{NAME}:1.0",))[f"{NAME}:1.0"]


def run(*argv: object) -> str:
    """A client's command that must end well; gives its standard output."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def skopeo(verb: str, *arguments: object) -> str:
    """A skopeo command over plain HTTP."""
    need("skopeo")
    return run("skopeo", verb, *arguments)


def address(url: str) -> str:
    """The registry as clients spell it: host and port."""
    return urlsplit(url).netloc


def test_skopeo_copies_lists_syncs_and_deletes(
    registry_url: str, archive: Path, tmp_path: Path
) -> None:
    """skopeo copy in and out and across repositories (mount), list-tags, sync, delete."""
    registry_host = address(registry_url)
    plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
    skopeo("copy", plain[1], f"docker-archive:{archive}", f"docker://{registry_host}/team/app:1.0")
    skopeo(
        "copy",
        *plain,
        f"docker://{registry_host}/team/app:1.0",
        f"docker://{registry_host}/other/app:2",
    )
    listed = json.loads(
        skopeo("list-tags", "--tls-verify=false", f"docker://{registry_host}/other/app")
    )
    assert listed["Tags"] == ["2"]
    skopeo("copy", plain[0], f"docker://{registry_host}/other/app:2", f"oci:{tmp_path}/out:2")
    skopeo(
        "sync",
        plain[0],
        "--src",
        "docker",
        "--dest",
        "dir",
        f"{registry_host}/team/app",
        tmp_path / "sync",
    )
    assert list((tmp_path / "sync").iterdir())
    skopeo("delete", "--tls-verify=false", f"docker://{registry_host}/other/app:2")
    gone = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{registry_host}/other/app:2"],
        capture_output=True,
        check=False,
    )
    assert gone.returncode
    skopeo("inspect", "--tls-verify=false", f"docker://{registry_host}/team/app:1.0")


def test_what_others_push_docket_knows(registry_url: str, archive: Path, host: Host) -> None:
    """Layers that came as gzip are known by diff_id: docket push uploads 0 layer bytes.

    And docket pull fetches such an image through the swarm, as any other.
    """
    registry_host = address(registry_url)
    skopeo(
        "copy",
        "--dest-tls-verify=false",
        f"docker-archive:{archive}",
        f"docker://{registry_host}/theirs:1.0",
    )
    assert host("build")("push", "ours:1.0", "--archive", archive)["uploaded"] == 0
    pulled = host("a")("pull", "theirs:1.0", "--layers-only")
    assert {layer["source"] for layer in pulled["layers"]} == {"swarm"}
    assert host("a")("pull", "ours:1.0", "--layers-only")["payload"]["swarm"] == 0


@pytest.mark.parametrize("compression", [ZSTD, GZIP])
def test_others_pull_what_docket_pushed(
    registry_url: str, archive: Path, host: Host, tmp_path: Path, compression: str
) -> None:
    """podman and skopeo pull zstd layers and gzip layers; the image is the one that was pushed."""
    need("podman")
    registry_host = address(registry_url)
    pushed = host("build")(
        "push", f"{NAME}:1.0", "--archive", archive, "--compression", compression
    )
    with short_folder() as root:
        storage = ("--root", root / "r", "--runroot", root / "rr", "--storage-driver", "vfs")
        name = f"{registry_host}/{NAME}:1.0"
        run("podman", *storage, "pull", "-q", "--tls-verify=false", name)
        image_id = run("podman", *storage, "images", "--no-trunc", "-q").strip()
        assert image_id == pushed["config"]
        run(
            "podman",
            *storage,
            "push",
            "-q",
            "--tls-verify=false",
            name,
            f"{registry_host}/back:1.0",
        )
    config = skopeo(
        "inspect", "--tls-verify=false", "--config", "--raw", f"docker://{registry_host}/back:1.0"
    )
    diff_ids = json.loads(config)["rootfs"]["diff_ids"]
    assert diff_ids == [layer["diff_id"] for layer in pushed["layers"]]


def test_docker_20_pushes_and_pulls(registry_url: str, archive: Path, host: Host) -> None:
    """Docker 20.10: push, mount into another repository, pull of gzip layers, the same image id."""
    need("dockerd")
    registry_host = address(registry_url)
    with short_folder() as root, dockerd(root) as engine:
        engine.load(archive)
        images = engine.client.images
        image_id = images.get(f"{NAME}:1.0").id
        for repository in ("first", "second"):
            images.get(f"{NAME}:1.0").tag(f"{registry_host}/{repository}", "1.0")
            rows = [
                json.loads(row)
                for row in "".join(
                    images.push(f"{registry_host}/{repository}", tag="1.0")
                ).splitlines()
            ]
            assert not [row for row in rows if "error" in row]
            if repository == "second":
                assert [row for row in rows if "Mounted" in row.get("status", "")]
        for name in (f"{NAME}:1.0", f"{registry_host}/first:1.0", f"{registry_host}/second:1.0"):
            images.remove(name, force=True)
        assert images.pull(f"{registry_host}/first", tag="1.0").id == image_id
        images.remove(f"{registry_host}/first:1.0", force=True)
        # docket knows the layers that docker pushed
        again = host("build")("push", "third:1.0", "--archive", archive)
        assert again["uploaded"] == 0
        assert again["config"] == image_id
        assert images.pull(f"{registry_host}/third", tag="1.0").id == image_id


def test_docker_20_resumes_what_breaks_off(registry_url: str, archive: Path, host: Host) -> None:
    """A connection that breaks in a layer: docker's push is tried again, its pull resumes by Range.

    The relay cuts the first long connection of each.
    """
    need("dockerd")
    target = (str(urlsplit(registry_url).hostname), int(urlsplit(registry_url).port or 0))
    with short_folder() as root, dockerd(root) as engine:
        engine.load(archive)
        images = engine.client.images
        image_id = images.get(f"{NAME}:1.0").id
        with relay(target, limit=1_000_000, breaks=1) as way:
            name = f"127.0.0.1:{way.port}/broken"
            images.get(f"{NAME}:1.0").tag(name, "1.0")
            said = "".join(images.push(name, tag="1.0"))
            assert '"error"' not in said
            assert way.broken == 1
        for tag in (f"{NAME}:1.0", f"{name}:1.0"):
            images.remove(tag, force=True)
        with relay(target, limit=1_000_000, breaks=1) as way:
            assert images.pull(f"127.0.0.1:{way.port}/broken", tag="1.0").id == image_id
            assert way.broken == 1
            assert [request for request in way.requests if b"\r\nRange: bytes=" in request]
    assert host("build")("push", "whole:1.0", "--archive", archive)["uploaded"] == 0


@pytest.fixture
def containerd() -> Iterator[Callable[..., str]]:
    """``ctr`` of a containerd of the test's own."""
    need("containerd", "ctr")
    with short_folder() as root:
        config = root / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{root}/root"\nstate = "{root}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{root}/s.sock"\n'
        )
        sock = root / "s.sock"

        def ctr(*arguments: object) -> str:
            return run("ctr", "--address", sock, *arguments)

        argv = ["containerd", "--config", str(config)]
        with started(argv, log=root / "log", ready=sock.is_socket):
            yield ctr


def test_containerd_pulls_and_pushes(
    registry_url: str, archive: Path, host: Host, containerd: Callable[..., str], tmp_path: Path
) -> None:
    """ctr pulls zstd layers by plain HTTP, through docket as a mirror (hosts.toml), and pushes."""
    registry_host = address(registry_url)
    pushed = host("build")("push", f"library/{NAME}:1.0", "--archive", archive)
    hosts = tmp_path / "hosts" / "registry.example"
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text(
        f'server = "{registry_url}"\n[host."{registry_url}"]\ncapabilities = ["pull", "resolve"]\n'
    )
    name = f"registry.example/library/{NAME}:1.0"
    containerd("images", "pull", "--hosts-dir", tmp_path / "hosts", name)
    assert pushed["digest"] in containerd("images", "list")
    containerd("images", "tag", name, f"{registry_host}/again:1.0")
    containerd("images", "push", "--plain-http", f"{registry_host}/again:1.0")
    tags = host("build")("images", "again")["images"]
    assert [tag["digest"] for tag in tags] == [pushed["digest"]]


def test_other_hosts_reach_a_registry_by_its_address(archive: Path) -> None:
    """The torrent's tracker and the seed are at the address that each host used."""
    with (
        namespaces(2) as (server, host),
        short_folder() as root,
        registry(root / "reg", bind="0.0.0.0", wrapper=server.enter) as bound,
    ):
        url = bound.replace("127.0.0.1", server.address)
        commands = Commands(url, root / "a", host.enter)
        commands("push", f"{NAME}:1.0", "--archive", archive)
        assert commands("inspect", f"{NAME}:1.0")["tracker"] == f"{url}/announce"
        pulled = commands("pull", f"{NAME}:1.0", "--layers-only")
        assert {layer["source"] for layer in pulled["layers"]} == {"swarm"}
