"""Real engines pull through a real agent, which fetches from a real registry by BitTorrent."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import docker
import pytest
import urllib3

from docket.oci.digest import Digest
from tests.support.agent_process import ACCEPT, AgentProcess, agent_process
from tests.support.commands import Commands, registry, registry_process
from tests.support.containerd import containerd
from tests.support.engine_setup import (
    CONTAINERD_CONFIG,
    folder,
    podman_tools,
    pull,
    remove_all,
    run,
    setup,
)
from tests.support.engines import Engine, Registry, docker_registry, dockerd
from tests.support.fault_proxy import relay
from tests.support.images import TinyImage, image_of, layer_tar, tiny_image
from tests.support.newer_docker import newer_dockerd
from tests.support.processes import free_port, short_folder
from tests.support.requirements import need

MB = 1_000_000
FOREIGN = "ghcr.io/acme/app:1.1"


@dataclass(frozen=True, slots=True)
class Fleet:
    """A docket registry with ``app`` and ``ghcr.io/acme/app``, and another beside it."""

    docket: Commands
    upstream: Registry
    image: TinyImage

    @property
    def address(self) -> str:
        """The docket registry as engines spell it."""
        return urlsplit(self.docket.url).netloc

    def digest(self, name: str) -> str:
        """The digest of a manifest of docket's registry."""
        repository, _, tag = name.rpartition(":")
        url = f"{self.docket.url}/v2/{repository}/manifests/{tag}"
        return str(Digest.of(urllib3.request("GET", url, headers=ACCEPT).data))


def app(version: str, *, size: int = 4 * MB) -> TinyImage:
    """A release: a base that all share, and two layers of its own."""
    layers = [layer_tar("base", size=size)]
    layers += [layer_tar(f"{version}-{number}", size=MB) for number in range(2)]
    return image_of(layers, f"app:{version}")


def push(docket: Commands, folder: Path, image: TinyImage, name: str) -> None:
    """Push *image* with gzip layers, which all engines take, as *name*."""
    archive = folder / "push.tar"
    archive.write_bytes(image.docker_save())
    docket("push", name, "--archive", archive, "--compression", "gzip")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The registries; ``team/other:1`` is in the other one alone."""
    need("skopeo")
    folder = tmp_path_factory.mktemp("fleet")
    image = app("1.1")
    layout = tiny_image("other").oci_layout(folder / "layout")
    with registry(folder / "docket") as url, docker_registry(folder / "upstream") as upstream:
        target = f"docker://{upstream.address}/team/other:1"
        run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:other:1.0", target)
        docket = Commands(url, folder / "host")
        for name in ("app:1.1", FOREIGN):
            push(docket, folder, image, name)
        yield Fleet(docket, upstream, image)


@pytest.fixture
def agent(fleet: Fleet, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that holds nothing yet."""
    with agent_process(fleet.docket.url, tmp_path / "agent") as agent:
        yield agent


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of the host that is set up."""
    return folder(tmp_path, "root")


def address(agent: AgentProcess) -> str:
    """The agent as engines spell it."""
    return urlsplit(agent.url).netloc


def diff_ids(engine: Engine, image: str) -> list[str]:
    """What the layers of the engine's image unpack to."""
    return list(engine.client.images.get(image).attrs["RootFS"]["Layers"])


def expected_diff_ids(image: TinyImage) -> list[str]:
    """What the layers of *image* are."""
    return [str(diff_id) for diff_id in image.diff_ids]


@pytest.mark.parametrize("newer", [False, True])
def test_docker_with_a_graph_driver_pulls_by_the_agent_s_name(
    fleet: Fleet, agent: AgentProcess, tmp_path: Path, newer: bool
) -> None:
    """The image has the id and layers of a direct pull; a tag that moved gives the new image."""
    docker = (
        newer_dockerd(tmp_path / "docker", containerd_store=False)
        if newer
        else dockerd(tmp_path / "docker")
    )
    name = "moving-newer" if newer else "moving"
    push(fleet.docket, tmp_path, fleet.image, f"{name}:1.1")
    with docker as engine:
        direct = pull(engine, f"{fleet.address}/app:1.1")
        remove_all(engine)
        assert pull(engine, f"{address(agent)}/{name}:1.1") == direct
        assert diff_ids(engine, direct) == expected_diff_ids(fleet.image)
        push(fleet.docket, tmp_path, app("1.2"), f"{name}:1.1")
        moved = pull(engine, f"{address(agent)}/{name}:1.1")
        assert diff_ids(engine, moved) == expected_diff_ids(app("1.2"))


def test_docker_with_the_containerd_store_pulls_any_name(
    fleet: Fleet, agent: AgentProcess, root: Path, tmp_path: Path
) -> None:
    """By the agent's name, the registry's own, and a foreign one that docket's registry has.

    What it doesn't have comes from its own registry. An agent that is down is no obstacle.
    """
    etc = folder(root, "etc/docker")
    names = {f"{address(agent)}/app:1.1": "app:1.1", f"{fleet.address}/app:1.1": "app:1.1"}
    with newer_dockerd(tmp_path / "docker", containerd_store=True, etc_docker=etc) as engine:
        setup(root, "docker", address(agent), "-h", fleet.docket.url)
        for name, stored in (names | {FOREIGN: FOREIGN}).items():
            assert pull(engine, name) == fleet.digest(stored)
            assert diff_ids(engine, name) == expected_diff_ids(fleet.image)
            remove_all(engine)
        other_name = f"{fleet.upstream.address}/team/other:1"
        assert pull(engine, other_name) == str(tiny_image("other").blobs("gzip")[0].digest)
        remove_all(engine)
        agent.process.terminate()
        agent.process.wait(20)
        assert pull(engine, other_name)
        assert pull(engine, f"{fleet.address}/app:1.1") == fleet.digest("app:1.1")


@pytest.mark.parametrize("suite", ["", "sid"])
def test_containerd_pulls_as_kubelet_does(
    fleet: Fleet, root: Path, tmp_path: Path, suite: str
) -> None:
    """containerd 1.6, and 2.1 that asks for parallel ranges of one layer while it arrives."""
    need("ctr")
    config = folder(root, "etc/containerd") / "config.toml"
    parallel = (
        "[plugins.'io.containerd.transfer.v1.local']\n"
        "  concurrent_layer_fetch_buffer = 524288\n  max_concurrent_downloads = 3\n"
    )
    config.write_text(CONTAINERD_CONFIG[suite] + (parallel if suite else ""))
    config_id = str(Digest.of(fleet.image.config))
    with (
        agent_process(fleet.docket.url, tmp_path / "agent") as agent,
        relay(
            ("127.0.0.1", urllib3.util.parse_url(agent.url).port or 0), limit=0, breaks=0
        ) as seen,
    ):
        setup(root, "containerd", f"127.0.0.1:{seen.port}")
        engine = containerd(
            tmp_path / "containerd",
            etc_containerd=root / "etc/containerd",
            etc_docker=folder(root, "etc/docker"),
            suite=suite,
        )
        with engine as running:
            assert running.cri_pull(FOREIGN) == config_id
            assert running.cri_pull(f"127.0.0.1:{seen.port}/app:1.1") == config_id
            other_name = f"{fleet.upstream.address}/team/other:1"
            assert running.cri_pull(other_name) == str(Digest.of(tiny_image("other").config))
        blobs = [request for request in seen.requests if b"/blobs/" in request.split(b"\r\n")[0]]
        assert blobs
        ranges = {line for request in blobs for line in request.lower().split(b"\r\n")}
        if suite:
            assert b"range: bytes=1048576-" in ranges


def test_podman_buildah_and_skopeo_pull(
    fleet: Fleet, agent: AgentProcess, root: Path, tmp_path: Path
) -> None:
    """By foreign names that docket's registry has, its own, and names that it doesn't have."""
    containers = folder(root, "etc/containers")
    containers.joinpath("policy.json").write_text(
        '{"default": [{"type": "insecureAcceptAnything"}]}'
    )
    plain = f'[[registry]]\nlocation = "{fleet.upstream.address}"\ninsecure = true\n'
    containers.joinpath("registries.conf").write_text(plain)
    setup(root, "podman", address(agent), "-h", fleet.docket.url)
    with short_folder() as short_path:
        for program, argv in podman_tools(root, short_path).items():
            scheme = "docker://" if program == "skopeo" else ""
            for name, stored in {FOREIGN: FOREIGN, f"{fleet.address}/app:1.1": "app:1.1"}.items():
                output = run(*argv, f"{scheme}{name}")
                if program == "skopeo":
                    assert str(Digest.of(output.encode())) == fleet.digest(stored)
                else:
                    assert output.split()[-1] == Digest.of(fleet.image.config).hex
            run(*argv, f"{scheme}{fleet.upstream.address}/team/other:1")


def test_docker_pulls_while_agents_are_killed(fleet: Fleet, root: Path, tmp_path: Path) -> None:
    """kill -9 at any moment: the pull ends well all the same, the rest comes from the registry."""
    etc = folder(root, "etc/docker")
    listen = f"127.0.0.1:{free_port()}"
    moments = random.Random("agents")
    with (
        registry(tmp_path / "registry", "--max-upload", "8000000") as url,
        newer_dockerd(tmp_path / "docker", containerd_store=True, etc_docker=etc) as engine,
    ):
        docket = Commands(url, tmp_path / "host")
        push(docket, tmp_path, fleet.image, "app:1.1")
        setup(root, "docker", listen, "-h", url)
        for number in range(3):
            with agent_process(url, tmp_path / f"agent{number % 2}", "--listen", listen) as agent:
                killing = threading.Timer(moments.uniform(0.02, 0.8), agent.process.kill)
                killing.start()
                name = f"{urlsplit(url).netloc}/app:1.1"
                assert pull(engine, name) == fleet.digest("app:1.1")
                killing.join()
            remove_all(engine)


def test_docker_pulls_while_the_registry_is_killed(
    fleet: Fleet, root: Path, tmp_path: Path
) -> None:
    """A pull that the registry's death breaks off is a failed pull; the next one ends well."""
    etc = folder(root, "etc/docker")
    moments = random.Random("registries")
    port = free_port()
    options = ("--max-upload", "8000000")
    url = f"http://127.0.0.1:{port}"
    docket = Commands(url, tmp_path / "host")
    with newer_dockerd(tmp_path / "docker", containerd_store=True, etc_docker=etc) as engine:
        with registry(tmp_path / "registry", port=port):
            push(docket, tmp_path, fleet.image, "app:1.1")
        for number in range(2):
            with agent_process(url, tmp_path / f"agent{number}") as agent:
                setup(root, "docker", address(agent), "-h", url)
                name = f"127.0.0.1:{port}/app:1.1"
                with registry_process(tmp_path / "registry", *options, port=port) as (_, pid):
                    moment = moments.uniform(0.02, 0.8)
                    killing = threading.Timer(moment, os.kill, (pid, signal.SIGKILL))
                    killing.start()
                    with suppress(docker.errors.APIError):
                        pull(engine, name)
                    killing.join()
                with registry(tmp_path / "registry", port=port):
                    assert pull(engine, name) == fleet.digest("app:1.1")
            remove_all(engine)
