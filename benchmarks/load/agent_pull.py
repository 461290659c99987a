"""One host: ``docker pull`` through an agent, beside ``docker pull`` from Debian's docker-registry.

Both registries hold the same gzip blobs. Each run has an engine without images and an agent with an
empty store, pulls the first release and then the second, in which the application's layer changed.
The two ways take turns. Run with ``python -m benchmarks.load.agent_pull --runs 5``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks import resources
from benchmarks.resources import Resources, ResourceSummary
from tests.support import servers
from tests.support.agent_process import agent_process
from tests.support.engines import Engine, dockerd
from tests.support.image_family.build import build
from tests.support.image_family.steps import FIRST, SECOND
from tests.support.newer_docker import newer_dockerd
from tests.support.processes import free_port
from tests.support.requirements import cache
from tests.support.servers import Server

DIRECT, AGENT = "docker-registry", "agent"


def measure(
    archives: Mapping[str, Path], folder: Path, *, runs: int, containerd_store: bool
) -> dict[str, dict[str, ResourceSummary]]:
    """What a pull takes, by way and release."""
    used: dict[str, dict[str, list[Resources]]] = defaultdict(lambda: defaultdict(list))
    with (
        servers.docker_registry(folder / "plain") as plain,
        servers.docket(folder / "docket") as docket,
        _engine(folder / "engine", containerd_store=containerd_store) as engine,
    ):
        for image, archive in archives.items():
            _fill(plain, docket, image, archive)
        for number in range(runs):
            for way in (DIRECT, AGENT):
                with _source(way, plain, docket, folder / f"agent-{number}") as address:
                    for image in archives:
                        used[way][image].append(_pull(engine, address, image))
                _empty(engine)
    return {
        way: {image: ResourceSummary.of(rows) for image, rows in images.items()}
        for way, images in used.items()
    }


@contextmanager
def _source(way: str, plain: Server, docket: Server, store: Path) -> Iterator[str]:
    """Where the engine pulls from."""
    if way == DIRECT:
        yield plain.netloc
        return
    address = f"127.0.0.1:{free_port()}"
    with agent_process(docket.url, store, "--listen", address, "--content-store", "none"):
        yield address


def _engine(root: Path, *, containerd_store: bool) -> AbstractContextManager[Engine]:
    return newer_dockerd(root, containerd_store=True) if containerd_store else dockerd(root)


def _fill(plain: Server, docket: Server, image: str, archive: Path) -> None:
    """Put *image* into both registries, the same bytes."""
    copy = ("skopeo", "copy", "--quiet", "--dest-tls-verify=false", "--src-tls-verify=false")
    first = f"docker://{plain.netloc}/{image}"
    for source, target in (
        (f"docker-archive:{archive}", first),
        (first, f"docker://{docket.netloc}/{image}"),
    ):
        subprocess.run([*copy, source, target], check=True)


def _pull(engine: Engine, address: str, image: str) -> Resources:
    repository, _, tag = image.partition(":")

    def pull() -> None:
        engine.client.images.pull(f"{address}/{repository}", tag=tag)

    return resources.of_call(pull, engines=engine.processes)


def _empty(engine: Engine) -> None:
    for image in engine.client.images.list():
        engine.client.images.remove(image.id, force=True)


def main() -> None:
    """Measure; prints JSON, with the agent's median seconds as a share of docker-registry's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="use small images")
    parser.add_argument("--containerd-store", action="store_true", help="use Docker 28 with it")
    options = parser.parse_args()
    images = build(cache() / "images", small=options.small, only=(FIRST, SECOND))
    archives = {image: images[image] for image in (FIRST, SECOND)}
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(
            archives, Path(folder), runs=options.runs, containerd_store=options.containerd_store
        )
    shares = {
        image: rows[AGENT][image].wall.median / rows[DIRECT][image].wall.median
        for image in archives
    }
    plain = {
        way: {image: asdict(summary) for image, summary in by_image.items()}
        for way, by_image in rows.items()
    }
    json.dump({"agent / docker-registry": shares, "pulls": plain}, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
