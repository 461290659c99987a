"""Pushing an image: docket beside Docker, podman and skopeo with Debian's docker-registry.

Docker's and podman's daemons are asked through their API, without the start of a command; docket's
command is a process of its own, as skopeo's is, with all that starting it takes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import resources
from benchmarks.resources import Resources, ResourceSummary
from tests.support import servers
from tests.support.commands import DOCKET, Commands
from tests.support.debian import require
from tests.support.engines import Engine, dockerd, podman_service
from tests.support.image_family.steps import FIRST
from tests.support.servers import Server, StartServer

DOCKER = "docker push"
PODMAN = "podman push"
SKOPEO = "skopeo copy"
DOCKET_ENGINE = "docket push"
DOCKET_ARCHIVE = "docket push --archive"
EXPORT = "docker save"

COLD = "cold"
UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Row:
    """A way to push an image: into an empty registry, then again. *stored* bytes of *plain*.

    Without a registry (*stored* is 0) it is an export of the image alone.
    """

    tool: str
    cold: ResourceSummary
    unchanged: ResourceSummary
    stored: int
    plain: int


@dataclass(frozen=True, slots=True)
class _Tool:
    """*push* pushes `FIRST` to a server; *engines* are the daemons that work for it."""

    start: StartServer
    push: Callable[[Server], Resources]
    stored: Callable[[Server, Path], int]


def measure(images: Mapping[str, Path], folder: Path, *, runs: int) -> list[Row]:
    """Every tool *runs* times, in turn, each time into an empty registry, then again."""
    for command, package in (("dockerd", "docker.io"), ("podman", "podman"), ("skopeo", "skopeo")):
        require(command, package)
    require("docker-registry", "docker-registry")
    archive = images[FIRST]
    runs_by_tool: dict[str, dict[str, list[Resources]]] = defaultdict(lambda: defaultdict(list))
    stored: dict[str, int] = {}
    with ExitStack() as stack:
        docker = stack.enter_context(dockerd(folder / "docker"))
        docker.load(archive)
        podman = stack.enter_context(podman_service(folder / "podman"))
        podman.load(archive)
        tools = _tools(archive, docker, podman, folder)
        for _ in range(runs):
            for name, tool in tools.items():
                folder_of_registry = folder / "registry"
                with tool.start(folder_of_registry) as server:
                    for state in (COLD, UNCHANGED):
                        os.sync()  # what others wrote is not to be waited for
                        runs_by_tool[name][state].append(tool.push(server))
                    stored[name] = tool.stored(server, folder_of_registry)
                shutil.rmtree(folder_of_registry)
            os.sync()
            runs_by_tool[EXPORT][COLD].append(_exported(docker))
    plain = archive.stat().st_size
    return [
        Row(
            name,
            ResourceSummary.of(runs[COLD]),
            ResourceSummary.of(runs.get(UNCHANGED, runs[COLD])),
            stored.get(name, 0),
            plain,
        )
        for name, runs in runs_by_tool.items()
    ]


def _tools(archive: Path, docker: Engine, podman: Engine, folder: Path) -> dict[str, _Tool]:
    def skopeo(server: Server) -> Resources:
        copy = ("skopeo", "copy", "--quiet", "--dest-tls-verify=false")
        target = f"docker://{server.netloc}/{FIRST}"
        return resources.of_command([*copy, f"docker-archive:{archive}", target], server=server.pid)

    def from_engine(server: Server) -> Resources:
        return _docket(server, folder, (), docker)

    def from_archive(server: Server) -> Resources:
        return _docket(server, folder, ("--archive", str(archive)), None)

    gzip, zstd = servers.docker_registry, servers.docket
    return {
        DOCKER: _Tool(
            gzip, lambda server: _by_engine(docker, FIRST, server), _stored_in_docker_registry
        ),
        PODMAN: _Tool(
            gzip,
            lambda server: _by_engine(podman, f"localhost/{FIRST}", server),
            _stored_in_docker_registry,
        ),
        SKOPEO: _Tool(gzip, skopeo, _stored_in_docker_registry),
        DOCKET_ENGINE: _Tool(zstd, from_engine, _stored_in_docket),
        DOCKET_ARCHIVE: _Tool(zstd, from_archive, _stored_in_docket),
    }


def _by_engine(engine: Engine, image: str, server: Server) -> Resources:
    repository, _, tag = FIRST.partition(":")
    target = f"{server.netloc}/{repository}"
    engine.client.images.get(image).tag(target, tag=tag)

    def push() -> None:
        for row in engine.client.images.push(target, tag=tag, stream=True, decode=True):
            if "error" in row:
                raise RuntimeError(f"push to {target}: {row['error']}")

    return resources.of_call(push, engines=engine.processes, server=server.pid)


def _docket(
    server: Server, folder: Path, options: Sequence[str], engine: Engine | None
) -> Resources:
    here = Commands(server.url, folder / "builder", engine=engine.host if engine else "")
    return resources.of_command(
        [*DOCKET, *here.options, "--json", "push", FIRST, *options],
        env=here.environment,
        engines=engine.processes if engine else (),
        server=server.pid,
    )


def _exported(engine: Engine) -> Resources:
    """The whole image out of the engine, as docket did for each push in 2015."""

    def export() -> None:
        for _ in engine.client.images.get(FIRST).save(chunk_size=1 << 20):
            pass

    return resources.of_call(export, engines=engine.processes)


def _stored_in_docker_registry(_server: Server, folder_of_registry: Path) -> int:
    return sum(
        path.stat().st_size
        for path in folder_of_registry.glob("docker/registry/v2/blobs/*/*/*/data")
    )


def _stored_in_docket(server: Server, _place: Path) -> int:
    listing = subprocess.run(
        [*DOCKET, "-h", server.url, "--json", "images"], capture_output=True, check=True
    )
    return sum(int(row["size"]) for row in json.loads(listing.stdout)["images"])


def ratios(rows: Sequence[Row]) -> Iterator[tuple[str, float, float]]:
    """What the goals are about: name, ratio, the ratio wanted (at least)."""
    by_tool = {row.tool: row for row in rows}
    docket, export = by_tool[DOCKET_ENGINE], by_tool[EXPORT]
    for tool in (DOCKER, PODMAN):
        ratio = by_tool[tool].cold.wall.median / docket.cold.wall.median
        yield f"cold: {tool} / {DOCKET_ENGINE}", ratio, 4.0
    archive = by_tool[DOCKET_ARCHIVE]
    ratio = by_tool[SKOPEO].cold.wall.median / archive.cold.wall.median
    yield f"cold: {SKOPEO} / {DOCKET_ARCHIVE}", ratio, 4.0
    ratio = export.cold.wall.median / docket.unchanged.wall.median
    yield f"unchanged: {EXPORT} / {DOCKET_ENGINE}", ratio, 10.0
    for tool in (DOCKER, PODMAN, SKOPEO):
        yield f"stored: {tool} / {DOCKET_ENGINE}", by_tool[tool].stored / docket.stored, 1.0
