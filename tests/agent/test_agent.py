"""An agent beside a registry, as an engine and as ``docket deploy`` see it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.support.agent_process import agent_process
from tests.support.commands import DOCKET, Commands, environment, registry, registry_process
from tests.support.images import TinyImage, image_of, layer_tar
from tests.support.processes import wait_until

MB = 1_000_000


def push(commands: Commands, folder: Path, image: TinyImage, name: str) -> None:
    """Push *image* as *name*."""
    archive = folder / f"{name.replace(':', '-').replace('/', '-')}.tar"
    archive.write_bytes(image.docker_save())
    commands("push", name, "--archive", archive)


def release(version: str, *, size: int = 3 * MB) -> TinyImage:
    """An image with a base that all releases share, and a layer of its own."""
    return image_of([layer_tar("base", size=size), layer_tar(version, size=MB)], f"app:{version}")


@pytest.fixture
def docket(tmp_path: Path) -> Iterator[Commands]:
    """Commands against a registry that has app:1.0."""
    with registry(tmp_path / "registry") as url:
        commands = Commands(url, tmp_path / "host")
        push(commands, tmp_path, release("1.0"), "app:1.0")
        yield commands


def rows(docket: Commands) -> list[dict[str, Any]]:
    """The hosts."""
    hosts = docket("hosts")["hosts"]
    assert isinstance(hosts, list)
    return hosts


def test_an_engine_pulls_an_image_through_two_agents(docket: Commands, tmp_path: Path) -> None:
    """All blobs come with their digests; a second pull is served from the store."""
    with (
        agent_process(docket.url, tmp_path / "a") as first,
        agent_process(docket.url, tmp_path / "b") as second,
    ):
        manifest = first.pull("app", "1.0")
        assert second.pull("app", "1.0") == manifest
        assert first.pull("app", "1.0") == manifest
        head = first.pool.request("HEAD", f"{first.url}/v2/app/manifests/1.0")
        assert head.headers["Docker-Content-Digest"].startswith("sha256:")


def test_ranges_of_an_arriving_layer_are_right(docket: Commands, tmp_path: Path) -> None:
    """containerd asks for one layer in parallel ranges while it still arrives."""
    with agent_process(docket.url, tmp_path / "a") as agent:
        manifest = json.loads(agent.get("app/manifests/1.0").data)
        layer = manifest["layers"][0]
        path, size = f"app/blobs/{layer['digest']}", layer["size"]
        middle = size // 2 + 7
        late = agent.stream(path, Range=f"bytes={middle}-")
        early = agent.stream(path, Range=f"bytes=0-{middle - 1}")
        assert (late.status, early.status) == (206, 206)
        assert late.headers["Content-Range"] == f"bytes {middle}-{size - 1}/{size}"
        content = early.data + late.data
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == layer["digest"]
        assert agent.get(path, Range=f"bytes={size}-").status == 416


def test_unknown_images_blobs_and_registries_are_404_at_once(
    docket: Commands, tmp_path: Path
) -> None:
    """The engine then goes to the registry that the image's name means."""
    with agent_process(docket.url, tmp_path / "a") as agent:
        assert agent.get("none/manifests/1.0").status == 404
        assert agent.get("app/manifests/9.9").status == 404
        assert agent.get(f"app/blobs/sha256:{'0' * 64}").status == 404
        assert agent.get("app/manifests/1.0?ns=ghcr.io").status == 404
        assert agent.get("app/manifests/not..a+tag").status == 400
        assert agent.pool.request("POST", f"{agent.url}/v2/app/blobs/uploads/").status in (404, 405)


def test_images_of_another_registry_are_found_under_its_name(
    docket: Commands, tmp_path: Path
) -> None:
    """``?ns=ghcr.io`` and ``acme/app`` mean ``ghcr.io/acme/app``; a port's colon becomes _."""
    push(docket, tmp_path, release("2.0"), "ghcr.io/acme/app:2.0")
    push(docket, tmp_path, release("3.0"), "reg.example.com_5000/app:3.0")
    with agent_process(docket.url, tmp_path / "a") as agent:
        assert agent.get("acme/app/manifests/2.0?ns=ghcr.io").status == 200
        assert agent.get("app/manifests/3.0?ns=reg.example.com:5000").status == 200


def test_what_is_held_is_served_while_the_registry_is_down(tmp_path: Path) -> None:
    """A tag by its last known digest, with a warning; what isn't held is an error, not a hang."""
    with ExitStack() as stack:
        with registry(tmp_path / "registry") as url:
            commands = Commands(url, tmp_path / "host")
            push(commands, tmp_path, release("1.0"), "app:1.0")
            agent = stack.enter_context(agent_process(url, tmp_path / "a"))
            manifest = agent.pull("app", "1.0")
        answer = agent.get("app/manifests/1.0")
        assert answer.status == 200
        assert answer.headers["Warning"].startswith("110 ")
        assert agent.pull("app", "1.0") == manifest
        assert agent.get("app/manifests/9.9").status >= 500


def test_a_moved_tag_is_what_the_registry_says_now(docket: Commands, tmp_path: Path) -> None:
    """A tag is resolved at the registry each time."""
    with agent_process(docket.url, tmp_path / "a") as agent:
        before = agent.pull("app", "1.0")
        push(docket, tmp_path, release("other"), "app:1.0")
        assert agent.pull("app", "1.0") != before


def test_a_deploy_reaches_all_agents_and_says_where_bytes_came_from(
    docket: Commands, tmp_path: Path
) -> None:
    """Layers that the hosts hold don't travel; the hosts then list the image as held."""
    push(docket, tmp_path, release("1.1"), "app:1.1")
    with (
        agent_process(docket.url, tmp_path / "a", "--name", "a", "--zone", "east") as first,
        agent_process(docket.url, tmp_path / "b", "--name", "b", "--label", "role=web") as second,
    ):
        manifest = first.pull("app", "1.0")
        second.pull("app", "1.0")
        done = deploy(docket, "app:1.1", "--all")
        assert done.returncode == 0, done.stdout.splitlines()[-3:]
        status = json.loads(done.stdout.splitlines()[-1])
        base = manifest["layers"][0]["size"]
        assert status["from_held"] == 2 * base
        moved = status["from_registry"] + status["from_hosts"]
        assert status["bytes_total"] - 2 * base == pytest.approx(moved, rel=0.2)
        wait_for_held(docket, {"a": 2, "b": 2})
        assert deploy(docket, "app:1.0", "--zone", "east").returncode == 0


def test_a_deploy_keeps_to_its_download_limit(docket: Commands, tmp_path: Path) -> None:
    """``--max-download`` of a deploy limits each host, whatever the agent itself may take."""
    push(docket, tmp_path, release("2.0", size=3 * MB), "app:2.0")
    with agent_process(docket.url, tmp_path / "a", "--name", "a"):
        done = deploy(docket, "app:2.0", "--all", "--max-download", str(MB))
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout.splitlines()[-1])
    # 4 MB at 1 MB/s; the first second's worth may come at once
    assert status["ended"] - status["created"] > 2


def test_a_deploy_reaches_a_host_that_was_off_when_it_returns(
    docket: Commands, tmp_path: Path
) -> None:
    """Its agent keeps its id with the store."""
    with agent_process(docket.url, tmp_path / "a", "--name", "a"):
        wait_for_held(docket, {"a": 0})
    created = subprocess.run(
        [*DOCKET, *docket.options, "deploy", "app:1.0", "--all", "--detach"],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    with agent_process(docket.url, tmp_path / "a", "--name", "a"):
        attached = deploy(docket, "--attach", created.stdout.strip())
    assert attached.returncode == 0, attached.stdout


def test_a_deploy_that_fails_on_a_host_gives_its_reason(docket: Commands, tmp_path: Path) -> None:
    """Without an engine ``--load`` can't be done; the image is fetched all the same."""
    with agent_process(docket.url, tmp_path / "a", "--name", "a"):
        done = deploy(docket, "app:1.0", "--all", "--load", engine="unix:///nowhere.sock")
        assert done.returncode == 9
        status = json.loads(done.stdout.splitlines()[-1])
    assert status["hosts"][0]["state"] == "failed"
    assert "engine" in status["hosts"][0]["reason"]


def test_an_agent_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """kill -9 in the middle of a pull: the next agent completes the image."""
    with registry_process(tmp_path / "registry", "--max-upload", "2000000") as (url, _):
        commands = Commands(url, tmp_path / "host")
        push(commands, tmp_path, release("1.0", size=6 * MB), "app:1.0")
        with ExitStack() as stack:
            agent = stack.enter_context(agent_process(url, tmp_path / "a"))
            manifest = json.loads(agent.get("app/manifests/1.0").data)
            body = agent.stream(f"app/blobs/{manifest['layers'][0]['digest']}")
            assert body.read(100_000)
            agent.process.kill()
        with agent_process(url, tmp_path / "a") as again:
            assert again.pull("app", "1.0") == manifest


def test_a_blob_that_broke_off_is_an_error_at_once(tmp_path: Path) -> None:
    """Engines fail when one blob breaks off again and again; after an error they go elsewhere.

    When the registry is back, so is the blob.
    """
    location = tmp_path / "registry"
    with ExitStack() as stack:
        with registry_process(location, "--max-upload", "1000000") as (url, pid):
            port = url.rpartition(":")[2]
            push(Commands(url, tmp_path / "host"), tmp_path, release("1.0", size=6 * MB), "app:1.0")
            agent = stack.enter_context(agent_process(url, tmp_path / "a"))
            layer = json.loads(agent.get("app/manifests/1.0").data)["layers"][0]
            path = f"app/blobs/{layer['digest']}"
            body = agent.stream(path)
            assert body.read(1000)
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(urllib3.exceptions.HTTPError):
            body.read()
        assert agent.get(path).status == 502
        with registry(location, port=int(port)):
            again = lambda: agent.get(path).status == 200  # noqa: E731
            wait_until(again, process=agent.process, log=agent.log)
            assert len(agent.get(path).data) == layer["size"]


def deploy(docket: Commands, *arguments: str, engine: str = "") -> subprocess.CompletedProcess[str]:
    """``docket --json deploy``, whatever its exit code."""
    argv = [*DOCKET, *docket.options, "--json", "deploy", *arguments, "--deadline", "60s"]
    argv = argv[:-2] if "--attach" in arguments else argv
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, env=environment(engine), timeout=120
    )


def wait_for_held(docket: Commands, expected: dict[str, int]) -> None:
    """Wait until the registry knows how many images each host holds."""
    by_host: dict[str, int] = {}
    for _ in range(600):
        by_host = {row["name"]: row["held"] for row in rows(docket) if row["connected"]}
        if by_host == expected:
            return
    raise AssertionError(by_host)


def test_one_agent_owns_the_store(docket: Commands, tmp_path: Path) -> None:
    """A second one says who has it, and ends with the code of a store in use."""
    with agent_process(docket.url, tmp_path / "a"):
        argv = [*DOCKET, "-h", docket.url, "-l", str(tmp_path / "a"), "agent"]
        argv += ["--listen", "127.0.0.1:0"]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env=environment(), timeout=60
        )
    assert done.returncode == 7
    assert "docket agent" in done.stderr
