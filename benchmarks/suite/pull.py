"""Pulling an image into Docker: docket beside ``docker pull`` from Debian's docker-registry.

The registries hold what each way of pushing stores: zstd layers, and gzip layers. Docker is asked
through its API; docket's command is a process of its own. It ends with what ``docker load`` of the
archive takes, which so bounds it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import resources
from benchmarks.resources import Resources, ResourceSummary
from benchmarks.summary import Summary
from tests.support import servers
from tests.support.commands import DOCKET, Commands
from tests.support.debian import require
from tests.support.engines import Engine, dockerd
from tests.support.image_family.steps import FIRST, SECOND
from tests.support.servers import Server

DOCKER_PULL = "docker pull"
DOCKET_PULL = "docket pull"
DOCKER_LOAD = "docker load"


@dataclass(frozen=True, slots=True)
class Row:
    """A way to get a release into an engine without it (*cold*) and then the next one.

    *parts* are seconds of the two, where the tool tells: fetched and verified, then loaded.
    """

    tool: str
    cold: ResourceSummary
    changed: ResourceSummary
    parts: dict[str, dict[str, Summary]]


def measure(images: Mapping[str, Path], folder: Path, *, runs: int) -> list[Row]:
    """Each *runs* times, in turn, each time into an engine without images."""
    require("dockerd", "docker.io")
    require("docker-registry", "docker-registry")
    require("skopeo", "skopeo")
    runs_by_tool: dict[str, dict[str, list[Resources]]] = defaultdict(lambda: defaultdict(list))
    parts: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        engine = stack.enter_context(dockerd(folder / "docker"))
        gzip = stack.enter_context(servers.docker_registry(folder / "gzip"))
        zstd = stack.enter_context(servers.docket(folder / "zstd"))
        for image in (FIRST, SECOND):
            _fill(gzip, zstd, image, images[image], folder)
        for _ in range(runs):
            for image in (FIRST, SECOND):
                os.sync()
                runs_by_tool[DOCKER_PULL][image].append(_by_docker(engine, gzip, image))
            _empty(engine)
            for image in (FIRST, SECOND):
                os.sync()
                used, seconds = _by_docket(engine, zstd, image, folder)
                runs_by_tool[DOCKET_PULL][image].append(used)
                for name, value in seconds.items():
                    parts[image][name].append(value)
            _empty(engine)
            shutil.rmtree(folder / "host")
            for image in (FIRST, SECOND):
                os.sync()
                runs_by_tool[DOCKER_LOAD][image].append(_by_load(engine, images[image]))
            _empty(engine)
    parts_by_image = {
        image: {name: Summary.of(values) for name, values in names.items()}
        for image, names in parts.items()
    }
    return [
        Row(
            tool,
            ResourceSummary.of(runs[FIRST]),
            ResourceSummary.of(runs[SECOND]),
            parts_by_image if tool == DOCKET_PULL else {},
        )
        for tool, runs in runs_by_tool.items()
    ]


def ratios(rows: Sequence[Row]) -> Iterator[tuple[str, float, float]]:
    """What the goals are about: name, ratio, the ratio wanted (at least)."""
    docker, docket = (of_tool(rows, tool) for tool in (DOCKER_PULL, DOCKET_PULL))
    cold = docker.cold.wall.median / docket.cold.wall.median
    yield f"cold: {DOCKER_PULL} / {DOCKET_PULL}", cold, 1.5
    changed = docket.cold.wall.median / docket.changed.wall.median
    yield f"{DOCKET_PULL}: cold / changed app layer", changed, 1 / 0.3


def of_tool(rows: Sequence[Row], tool: str) -> Row:
    """The row of *tool*."""
    return next(row for row in rows if row.tool == tool)


def most(rows: Sequence[Row]) -> float:
    """How many times faster than ``docker pull`` a cold pull that ends in a load can be."""
    docker, load = (of_tool(rows, tool).cold.wall.median for tool in (DOCKER_PULL, DOCKER_LOAD))
    return docker / load


def _fill(gzip: Server, zstd: Server, image: str, archive: Path, folder: Path) -> None:
    copy = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"docker-archive:{archive}"]
    subprocess.run([*copy, f"docker://{gzip.netloc}/{image}"], check=True)
    Commands(zstd.url, folder / "builder")("push", image, "--archive", archive)


def _by_docker(engine: Engine, server: Server, image: str) -> Resources:
    repository, _, tag = image.partition(":")

    def pull() -> None:
        engine.client.images.pull(f"{server.netloc}/{repository}", tag=tag)

    return resources.of_call(pull, engines=engine.processes, server=server.pid)


def _by_load(engine: Engine, archive: Path) -> Resources:
    return resources.of_call(lambda: engine.load(archive), engines=engine.processes)


def _by_docket(
    engine: Engine, server: Server, image: str, folder: Path
) -> tuple[Resources, dict[str, float]]:
    here = Commands(server.url, folder / "host", engine=engine.host)
    output = folder / "report.json"
    used = resources.of_command(
        [*DOCKET, *here.options, "--json", "pull", image],
        env=here.environment,
        engines=engine.processes,
        server=server.pid,
        output=output,
    )
    return used, json.loads(output.read_bytes())["seconds"]


def _empty(engine: Engine) -> None:
    for image in engine.client.images.list():
        engine.client.images.remove(image.id, force=True)
