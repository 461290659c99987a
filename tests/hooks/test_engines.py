"""Real engines pull through a stand-in agent once setup has written their files."""

from __future__ import annotations

import gzip
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from docket.oci.digest import Digest
from tests.hooks.conftest import put, snapshot
from tests.support.agent_stand_in import StandIn, stand_in
from tests.support.containerd import containerd
from tests.support.engine_setup import (
    CONTAINERD_CONFIG,
    folder,
    podman_tools,
    pull,
    remove_all,
    run,
    setup,
    undo,
)
from tests.support.engines import Registry, docker_registry, dockerd
from tests.support.images import TinyImage, tiny_image
from tests.support.newer_docker import newer_dockerd
from tests.support.processes import short_folder
from tests.support.requirements import need
from tests.support.syn_drop import black_hole

FOREIGN = ("ghcr.io/acme/app:1.1", "docker.io/library/app:1.1", "registry.example:5000/app:1.1")
DIAL_SECONDS = 30  # of containerd, where setup doesn't say otherwise


@pytest.fixture(scope="module")
def image() -> TinyImage:
    """What the agent has under every name."""
    return tiny_image("agent")


@pytest.fixture
def agent(image: TinyImage) -> Iterator[StandIn]:
    """The agent."""
    with stand_in() as agent:
        for name in ("app:1.1", *FOREIGN):
            agent.add(name, image)
        yield agent


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with an image that the agent lacks, ``team/other:1``."""
    need("skopeo")
    folder = tmp_path_factory.mktemp("upstream")
    layout = tiny_image("other").oci_layout(folder / "layout")
    with docker_registry(folder / "registry") as registry:
        target = f"docker://{registry.address}/team/other:1"
        run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:other:1.0", target)
        yield registry


def manifest_of(image: TinyImage) -> Digest:
    """The digest of the image's manifest, the id with the containerd store."""
    return image.blobs("gzip")[0].digest


def test_docker_with_the_containerd_store(
    root: Path, agent: StandIn, upstream: Registry, image: TinyImage, tmp_path: Path
) -> None:
    """Docker >= 28 asks the agent first for every registry, without a restart.

    The registry is named by ``?ns=``, except when the image is named by the agent. What the agent
    lacks comes from the registry, also while the agent is down; pushes never go to the agent.
    """
    etc = folder(root, "etc/docker")
    before = snapshot(root)
    with newer_dockerd(tmp_path / "docker", containerd_store=True, etc_docker=etc) as engine:
        setup(root, "docker", agent.address)
        for name in FOREIGN:
            assert pull(engine, name) == str(manifest_of(image))
            assert agent.paths(name.partition("/")[0])
        assert pull(engine, f"{agent.address}/app:1.1") == str(manifest_of(image))
        assert agent.paths() == ["/v2/app/manifests/1.1"]
        other_name = f"{upstream.address}/team/other:1"
        assert pull(engine, other_name) == str(manifest_of(tiny_image("other")))
        assert "/v2/team/other/manifests/1" in agent.paths(upstream.address)

        agent.requests.clear()
        engine.client.images.get(FOREIGN[0]).tag(f"{upstream.address}/pushed/app", "2")
        assert "digest: sha256:" in engine.client.images.push(f"{upstream.address}/pushed/app", "2")
        assert agent.requests == []

        with black_hole() as gone:
            setup(root, "docker", gone)
            remove_all(engine)
            begun = time.monotonic()
            assert pull(engine, other_name) == str(manifest_of(tiny_image("other")))
            # each of the five requests would cost 30 s
            assert time.monotonic() - begun < DIAL_SECONDS
        remove_all(engine)
        assert pull(engine, other_name)  # now its connections are refused
        undo(root, "docker")
    assert snapshot(root) == before


def test_docker_s_settings_hold_beside_the_agent(
    root: Path, agent: StandIn, upstream: Registry, image: TinyImage, tmp_path: Path
) -> None:
    """registry-mirrors of daemon.json come after the agent, instead of not at all.

    Here the mirror of docker.io is the registry that has team/other.
    """
    etc = folder(root, "etc/docker")
    mirror = f"http://{upstream.address}"
    put(root, "/etc/docker/daemon.json", f'{{"registry-mirrors": ["{mirror}"]}}')
    settings = {"registry-mirrors": [mirror]}
    setup(root, "docker", agent.address)
    docker = newer_dockerd(
        tmp_path / "docker", containerd_store=True, etc_docker=etc, daemon_settings=settings
    )
    with docker as engine:
        assert pull(engine, "docker.io/library/app:1.1") == str(manifest_of(image))
        image_id = pull(engine, "docker.io/team/other:1")
        assert image_id == str(manifest_of(tiny_image("other")))
    assert "/v2/team/other/manifests/1" in agent.paths("docker.io")


def test_an_agent_that_dies_in_a_layer(
    root: Path, agent: StandIn, upstream: Registry, tmp_path: Path
) -> None:
    """Docker and containerd get the rest of the layer, and the others, from the registry."""
    second = tiny_image("other")
    name = f"{upstream.address}/team/other:1"
    agent.add(name, second)
    agent.dies_in = Digest.of(gzip.compress(second.layers[0], mtime=0))
    docker, config = folder(root, "etc/docker"), folder(root, "etc/containerd")
    put(root, "/etc/containerd/config.toml", CONTAINERD_CONFIG[""])
    setup(root, "docker", agent.address)
    setup(root, "containerd", agent.address)
    with newer_dockerd(tmp_path / "docker", containerd_store=True, etc_docker=docker) as engine:
        assert pull(engine, name) == str(manifest_of(second))
        assert agent.is_dead
    agent.is_dead = False
    with containerd(tmp_path / "containerd", etc_containerd=config, etc_docker=docker) as running:
        assert running.cri_pull(name) == str(Digest.of(second.config))
        assert agent.is_dead


@pytest.mark.parametrize("newer", [False, True])
def test_docker_with_a_graph_driver(
    root: Path, agent: StandIn, image: TinyImage, tmp_path: Path, newer: bool
) -> None:
    """The name prefix works on loopback without any setting; a _default folder does no harm."""
    etc = folder(root, "etc/docker")
    output = setup(root, "docker", agent.address)
    name = f"{agent.address}/app:1.1"
    assert f"docker pull {agent.address}/NAME:TAG" in output
    docker = (
        newer_dockerd(tmp_path / "docker", containerd_store=False, etc_docker=etc)
        if newer
        else dockerd(tmp_path / "docker")
    )
    with docker as engine:
        assert pull(engine, name) == str(Digest.of(image.config))
    assert {request.namespace for request in agent.requests} == {""}


@pytest.mark.parametrize("suite", ["", "sid"])
def test_containerd_as_kubelet_pulls(
    root: Path, agent: StandIn, image: TinyImage, tmp_path: Path, suite: str
) -> None:
    """containerd 1.6 and 2.1 pull by CRI through the agent, and ctr with --hosts-dir."""
    put(root, "/etc/containerd/config.toml", CONTAINERD_CONFIG[suite])
    docker = folder(root, "etc/docker")
    before = snapshot(root)
    setup(root, "containerd", agent.address)
    engine = containerd(
        tmp_path / "containerd",
        etc_containerd=root / "etc/containerd",
        etc_docker=docker,
        suite=suite,
    )
    with engine as running:
        for name in FOREIGN:
            assert running.cri_pull(name) == str(Digest.of(image.config))
            assert agent.paths(name.partition("/")[0])
        assert running.cri_pull(f"{agent.address}/app:1.1") == str(Digest.of(image.config))
        agent.requests.clear()
        hosts = ("--hosts-dir", "/etc/containerd/certs.d", "--snapshotter", "native")
        running.ctr("-n", "test", "images", "pull", *hosts, FOREIGN[0])
        assert agent.paths("ghcr.io")
    undo(root, "containerd")
    assert snapshot(root) == before


def test_registries_are_reached_as_before(
    root: Path, agent: StandIn, upstream: Registry, tmp_path: Path
) -> None:
    """Behind the agent, a registry's own certificates still count, and docket's plain HTTP too.

    The names are none of loopback, which engines would trust anyway.
    """
    port = upstream.address.partition(":")[2]
    config = put(root, "/etc/containerd/config.toml", CONTAINERD_CONFIG[""])
    secure, authority = certificate(tmp_path)
    with stand_in(tls=secure) as private:
        name = f"registry.test:{private.address.partition(':')[2]}"
        expected = Digest.of(tiny_image("private").config)
        private.add("app:1", tiny_image("private"))
        put(root, f"/etc/containerd/certs.d/{name}/ca.crt", authority)
        config.write_text(
            f'{CONTAINERD_CONFIG[""]}[plugins."io.containerd.grpc.v1.cri".registry]\n'
            'config_path = "/etc/containerd/certs.d"\n'
        )
        setup(root, "containerd", agent.address, "-h", f"http://registry.test:{port}")
        engine = containerd(
            tmp_path / "containerd",
            etc_containerd=root / "etc/containerd",
            etc_docker=folder(root, "etc/docker"),
        )
        with engine as running:
            assert running.cri_pull(f"{name}/app:1") == str(expected)
            plain = running.cri_pull(f"registry.test:{port}/team/other:1")
            assert plain == str(Digest.of(tiny_image("other").config))
    assert "/v2/app/manifests/1" in agent.paths(name)
    assert "/v2/team/other/manifests/1" in agent.paths(f"registry.test:{port}")


def certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    """A server's TLS for registry.test, and the certificate that clients have to trust."""
    need("openssl")
    key, chain = folder / "key.pem", folder / "chain.pem"
    subject = ("-subj", "/CN=registry.test", "-addext", "subjectAltName=DNS:registry.test")
    new = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    run(*new, "-nodes", "-days", "2", *subject, "-keyout", key, "-out", chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context, chain.read_text()


def test_podman_buildah_and_skopeo(
    root: Path, agent: StandIn, upstream: Registry, image: TinyImage, tmp_path: Path
) -> None:
    """They ask the agent for ``<registry>/<name>``, and then the registry."""
    policy = '{"default": [{"type": "insecureAcceptAnything"}]}'
    put(root, "/etc/containers/policy.json", policy)
    plain = f'[[registry]]\nlocation = "{upstream.address}"\ninsecure = true\n'
    put(root, "/etc/containers/registries.conf", plain)
    before = snapshot(root)
    name = FOREIGN[0]
    setup(root, "podman", agent.address, "-h", "http://registry.test:8000")
    with short_folder() as folder:
        for program, argv in podman_tools(root, folder).items():
            scheme = "docker://" if program == "skopeo" else ""
            agent.requests.clear()
            run(*argv, f"{scheme}{name}")
            assert "/v2/ghcr.io/acme/app/manifests/1.1" in agent.paths()
            run(*argv, f"{scheme}{upstream.address}/team/other:1")
            missed = f"/v2/{upstream.address.replace(':', '_')}/team/other/manifests/1"
            assert missed in agent.paths()
            run(*argv, f"{scheme}registry.test:8000/app:1.1")
            assert "/v2/app/manifests/1.1" in agent.paths()
    undo(root, "podman")
    assert snapshot(root) == before
