"""Real container engines and a real registry, each in a folder of its own."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from tests.support.processes import (
    NotReady,
    answers,
    end_all_naming,
    environment,
    free_port,
    naming,
    short_folder,
    started,
    unmount_below,
)
from tests.support.requirements import need, need_root

# 10.0.0.0/8 is where the tests' network namespaces are; 127.0.0.0/8 is trusted anyway.
DOCKERD_FLAGS = (
    "--iptables=false",
    "--ip6tables=false",
    "--bridge=none",
    "--insecure-registry=10.0.0.0/8",
)
_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine that speaks Docker's API at *socket*."""

    socket: Path
    client: Any  # docker.DockerClient, which has no types

    @property
    def host(self) -> str:
        """What DOCKER_HOST is to be."""
        return f"unix://{self.socket}"

    @property
    def processes(self) -> list[int]:
        """The engine's daemons by process id."""
        return list(naming(self.socket.parent))

    def load(self, archive: Path) -> list[str]:
        """Load a docker archive; return the names the engine gave."""
        with archive.open("rb") as stream:
            images = self.client.images.load(stream)
        return [tag for image in images for tag in image.tags]


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry without encryption."""

    address: str  # host:port

    @property
    def url(self) -> str:
        """Where its API is."""
        return f"http://{self.address}"


@contextmanager
def dockerd(
    root: Path, *, storage_driver: str = "", wrapper: Sequence[str] = ()
) -> Iterator[Engine]:
    """Docker with its images under *root*, which it finds again when started there later.

    *storage_driver* is overlay2 where *root* can hold it, else the slower vfs, if not given.
    *wrapper* goes before the command, e.g. Host.enter to run in a network namespace. A client
    of the command line is not needed. Leaving ends all it started; *root* stays.
    """
    need("dockerd", "containerd", "runc", "unshare")
    need_root()
    driver = storage_driver or ("overlay2" if holds_overlays(root) else "vfs")
    with short_folder() as folder:
        socket = folder / "d.sock"
        argv = [*wrapper, "dockerd", *dockerd_places(root, folder)]
        options = [f"--storage-driver={driver}", *DOCKERD_FLAGS]
        running = _started_at(socket, [*argv, *options], folder)
        with ended(root, folder), running, connected(socket) as engine:
            yield engine


@contextmanager
def podman_service(root: Path, *, storage_driver: str = "") -> Iterator[Engine]:
    """Podman's service with its images under *root*; names it gives begin with localhost/."""
    need("podman", "unshare")
    need_root()
    driver = storage_driver or ("overlay" if holds_overlays(root) else "vfs")
    with short_folder() as folder:
        socket = folder / "p.sock"
        config = folder / "containers.conf"
        # Locks in shared memory would be those of every other Podman of this machine.
        config.write_text('[engine]\nlock_type = "file"\ncgroup_manager = "cgroupfs"\n')
        registries = folder / "registries.conf"
        registries.write_text(
            'short-name-mode = "permissive"\n'
            '[[registry]]\nprefix = "127.0.0.1"\nlocation = "127.0.0.1"\ninsecure = true\n'
        )
        argv = [
            "podman",
            f"--root={root / 'podman'}",
            f"--runroot={folder / 'run'}",
            f"--tmpdir={folder / 'tmp'}",
            f"--storage-driver={driver}",
            "system",
            "service",
            "--time=0",
            f"unix://{socket}",
        ]
        more = {
            "CONTAINERS_CONF": str(config),
            "CONTAINERS_REGISTRIES_CONF": str(registries),
            "TMPDIR": str(folder),
        }
        running = _started_at(socket, argv, folder, **more)
        with ended(root, folder), running, connected(socket) as engine:
            yield engine


@contextmanager
def docker_registry(root: Path) -> Iterator[Registry]:
    """Docker's registry (distribution 2.8) on loopback, with its blobs under *root*."""
    need("docker-registry")
    root.mkdir(parents=True, exist_ok=True)
    with short_folder() as folder, ExitStack() as stack:
        yield _serve(root, folder, stack, tries=3)


def holds_overlays(root: Path) -> bool:
    """Whether overlays can be made in *root* (not if it is one itself)."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        for name in ("lower", "upper", "work", "merged"):
            Path(folder, name).mkdir()
        layers = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        # In a mount namespace that ends with the command: there is nothing to unmount.
        mount = ["unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", layers]
        tried = subprocess.run([*mount, f"{folder}/merged"], check=False, capture_output=True)
    return not tried.returncode


def dockerd_places(root: Path, folder: Path) -> list[str]:
    """Options that keep dockerd's images in *root* and its sockets in *place*."""
    return [
        f"--data-root={root / 'docker'}",
        f"--exec-root={folder / 'x'}",
        f"--pidfile={folder / 'd.pid'}",
        f"--host=unix://{folder / 'd.sock'}",
    ]


@contextmanager
def connected(socket: Path) -> Iterator[Engine]:
    """The engine that answers at *socket*."""
    client = docker.DockerClient(base_url=f"unix://{socket}", timeout=_SECONDS)
    try:
        yield Engine(socket, client)
    finally:
        client.close()


@contextmanager
def ended(root: Path, folder: Path) -> Iterator[None]:
    """Afterwards nothing of an engine in *root* and *place* runs or is mounted."""
    try:
        yield
    finally:
        end_all_naming(folder)
        unmount_below(root)


def pings(socket: Path) -> bool:
    """Whether an engine answers at *socket*."""
    if not answers(socket):
        return False
    # The SDK lets errors of three libraries through.
    with suppress(Exception), connected(socket) as engine:
        return bool(engine.client.ping())
    return False


@contextmanager
def _started_at(socket: Path, argv: Sequence[str], folder: Path, **more: str) -> Iterator[None]:
    with started(argv, log=folder / "log", ready=lambda: pings(socket), env=environment(**more)):
        yield


def _serve(root: Path, folder: Path, stack: ExitStack, *, tries: int) -> Registry:
    """Start a registry on a free port; try again when another program was faster."""
    port = free_port()
    config = folder / "registry.yml"
    storage = {"filesystem": {"rootdirectory": str(root)}, "delete": {"enabled": True}}
    settings = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": storage,
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    config.write_text(json.dumps(settings))  # JSON is YAML too
    running = started(
        ["docker-registry", "serve", config],
        log=folder / "log",
        ready=lambda: answers("127.0.0.1", port),
        env=environment(),
    )
    try:
        stack.enter_context(running)
    except NotReady:
        if tries == 1:
            raise
        return _serve(root, folder, stack, tries=tries - 1)
    return Registry(f"127.0.0.1:{port}")
