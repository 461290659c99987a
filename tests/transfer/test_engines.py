"""Push from and pull into real container engines, in network namespaces that count every byte."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from docket.archive import load_archive, read
from docket.archive.write import LoadLayer
from tests.support.commands import Commands, registry
from tests.support.engines import Engine, dockerd, podman_service
from tests.support.image_family.build import build
from tests.support.namespaces import namespaces
from tests.support.newer_docker import newer_dockerd
from tests.support.processes import short_folder
from tests.support.requirements import cache, need

NAME = "app-python"
KINDS = ("docker", "podman", "docker 28, graph driver", "docker 28, containerd store")

# what a pull of a changed release may move, beside the changed layers' stored bytes
OVERHEAD = 1.02
ALLOWANCE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """A host with an engine and a registry on another host."""

    engine: Engine
    docket: Commands
    count: Any


@contextmanager
def placed(kind: str) -> Iterator[Place]:
    """An engine of *kind* on one host, a registry on another."""
    with ExitStack() as stack:
        server, host = stack.enter_context(namespaces(2))
        root = stack.enter_context(short_folder())
        engine = stack.enter_context(started(kind, root / "engine", host.enter))
        url = stack.enter_context(
            registry(root / "registry", bind=server.address, wrapper=server.enter)
        )
        commands = Commands(url, root / "host", host.enter, engine.host)
        yield Place(engine, commands, host.rx_bytes)


def started(kind: str, root: Path, enter: tuple[str, ...]) -> Any:
    """The engine of *kind*; podman's service doesn't care for the network."""
    root.mkdir()
    if kind == "docker":
        return dockerd(root, storage_driver="vfs", wrapper=enter)
    if kind == "podman":
        return podman_service(root)
    return newer_dockerd(root, containerd_store="containerd" in kind, wrapper=enter)


@pytest.fixture(scope="module")
def family() -> dict[str, Path]:
    """The small family of real images."""
    need("mmdebstrap", "npm")
    return build(cache() / "images", small=True, only=(f"{NAME}:1.0", f"{NAME}:1.1"))


@pytest.fixture(scope="module")
def plain_archive(family: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Release 1.0 as Docker since 25 saves it: every engine names the image alike then."""
    folder = tmp_path_factory.mktemp("plain")
    image = read(family[f"{NAME}:1.0"], spool=folder, name=f"{NAME}:1.0")
    layers = [LoadLayer(layer.diff_id, layer.size, layer.open_plain) for layer in image.layers]
    path = folder / "1.0.tar"
    with path.open("wb") as file:
        file.writelines(load_archive(image.config, layers, [f"{NAME}:1.0"]))
    return path


def inspected(engine: Engine, tag: str) -> tuple[str, Any]:
    """An image's id and RootFS, as ``docker inspect`` shows them."""
    attributes = engine.client.images.get(f"{NAME}:{tag}").attrs
    return attributes["Id"], attributes["RootFS"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_goes_round_and_a_release_moves_only_what_changed(
    kind: str, family: dict[str, Path], plain_archive: Path
) -> None:
    """load, push, remove, pull gives the same image; a release moves its changed layer alone."""
    with placed(kind) as host:
        host.engine.load(plain_archive)
        before = inspected(host.engine, "1.0")
        pushed = host.docket("push", f"{NAME}:1.0")
        assert pushed["uploaded"] == sum(layer["size"] for layer in pushed["layers"])
        again = host.docket("push", f"{NAME}:1.0")
        assert again["uploaded"] == 0
        assert again["digest"] == pushed["digest"]

        host.engine.client.images.remove(f"{NAME}:1.0", force=True)
        first = host.docket("pull", f"{NAME}:1.0")
        assert inspected(host.engine, "1.0") == before
        assert first["loaded_layers"] == len(pushed["layers"])
        assert {layer["source"] for layer in first["layers"]} == {"swarm"}

        release = family[f"{NAME}:1.1"]
        changed = host.docket("push", f"{NAME}:1.1", "--archive", release)["uploaded"]
        planned = host.docket("plan", f"{NAME}:1.1")["to_move"]
        assert planned == changed
        counted = host.count()
        second = host.docket("pull", f"{NAME}:1.1")
        received = host.count() - counted
        bound = OVERHEAD * changed + ALLOWANCE
        assert second["payload"]["http"] == 0
        assert second["payload"]["swarm"] <= bound
        assert received <= bound
        assert second["loaded_layers"] == 1
        assert [layer["source"] for layer in second["layers"]] == ["held"] * 3 + ["swarm"]
        assert len(inspected(host.engine, "1.1")[1]["Layers"]) == len(second["layers"])


def test_layers_that_the_engine_has_at_its_base_are_not_downloaded(
    family: dict[str, Path],
) -> None:
    """A plain pull leaves out the engine's base layers, though this host's store lacks them."""
    with placed("docker") as host:
        host.engine.load(family[f"{NAME}:1.0"])
        pushed = host.docket("push", f"{NAME}:1.1", "--archive", family[f"{NAME}:1.1"])
        pulled = host.docket("pull", f"{NAME}:1.1")
        assert pulled["payload"]["swarm"] <= OVERHEAD * pushed["layers"][-1]["size"] + ALLOWANCE
        assert pulled["loaded_layers"] == 1
        assert host.docket("plan", f"{NAME}:1.1", "--layers-only")["to_move"] > 0
        whole = host.docket("pull", f"{NAME}:1.1", "--layers-only")
        assert whole["loaded_layers"] == 0
        assert host.docket("plan", f"{NAME}:1.1", "--layers-only")["to_move"] == 0
