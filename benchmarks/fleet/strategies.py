"""The ways of bringing an image to N hosts: docket, a plain registry, one torrent of the tar."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from docket.pieces import PIECE_LENGTH
from tests.support import servers
from tests.support.commands import DOCKET, Commands
from tests.support.netns import Host, Network

_NAME = "fleet:1"
_PORT = 8000
_SEED_SECONDS = "100000"
"""Longer than any run: hosts serve each other until the last one is done, and are ended then."""

_ORIGINAL = (sys.executable, "-m", "benchmarks.fleet.baseline_2015")


@dataclass(frozen=True, slots=True)
class Image:
    """An archive, and a folder with stores of the registries that have its image.

    *size* is the sum of its layers as they are pushed, in bytes, and *pieces* those of its torrent.
    """

    archive: Path
    stores: Path
    size: int
    pieces: int


@dataclass(frozen=True, slots=True)
class Source:
    """What the hosts pull from: process *pid*, and what moves to each of them, in *payload* bytes.

    *argv* is the command to run on a host; it keeps what it gets in a folder, and loads the image
    into an engine if told so. It says that all is there by a line on its standard output, or ends.
    """

    pid: int
    payload: int
    argv: Callable[[Host, Path, bool], Sequence[str]]


Strategy = Callable[[Image, Network], AbstractContextManager[Source]]


def prepare(archive: Path, folder: Path, ways: Collection[str]) -> Image:
    """Push the image of *archive* into new stores in *folder*, of what registries *ways* need."""
    with servers.docket(folder / "docket") as server:
        push = Commands(server.url, folder / "builder")
        report = push("push", _NAME, "--archive", archive)
        if "direct" in ways:
            with servers.docker_registry(folder / "registry") as plain:
                copy = ("skopeo", "copy", "--quiet", "--src-tls-verify=false")
                where = (f"docker://{one.place}/{_NAME}" for one in (server, plain))
                subprocess.run([*copy, "--dest-tls-verify=false", *where], check=True)
    sizes = {layer["digest"]: layer["size"] for layer in report["layers"]}.values()
    return Image(archive, folder, sum(sizes), sum(-(-size // PIECE_LENGTH) for size in sizes))


@contextmanager
def docket(image: Image, network: Network) -> Iterator[Source]:
    """`docket pull` on every host, from docket's registry."""
    source = network.hosts[0]
    running = servers.docket(image.stores / "docket", bind=source.address, wrapper=source.enter)
    with running as server:

        def argv(_host: Host, folder: Path, load: bool) -> Sequence[str]:
            where = ("-h", server.url, "-l", str(folder), "--json")
            pull = (
                "pull",
                _NAME,
                "--seed-for",
                _SEED_SECONDS,
                *(() if load else ("--layers-only",)),
            )
            return (*DOCKET, *where, *pull)

        yield Source(server.pid, image.size, argv)


@contextmanager
def direct(image: Image, network: Network) -> Iterator[Source]:
    """`skopeo copy` on every host, from Debian's docker-registry."""
    source = network.hosts[0]
    running = servers.docker_registry(
        image.stores / "registry", bind=source.address, port=_PORT, wrapper=source.enter
    )
    with running as server:

        def argv(_host: Host, folder: Path, _load: bool) -> Sequence[str]:
            copy = ("skopeo", "copy", "--quiet", "--src-tls-verify=false")
            return (*copy, f"docker://{server.place}/{_NAME}", f"dir:{folder}/image")

        yield Source(server.pid, image.size, argv)


@contextmanager
def original(image: Image, network: Network) -> Iterator[Source]:
    """One torrent of the whole archive, as the first docket did; libtorrent with its defaults."""
    source = network.hosts[0]
    torrent = image.stores / "original.torrent"
    seed = (*source.enter, *_ORIGINAL, "seed", source.address, str(torrent), str(image.archive))
    with subprocess.Popen(seed, stdout=subprocess.PIPE) as running:
        try:
            if not running.stdout or not running.stdout.readline():
                raise RuntimeError("the torrent's seed didn't get ready")

            def argv(host: Host, folder: Path, _load: bool) -> Sequence[str]:
                return (*_ORIGINAL, "leech", host.address, str(torrent), str(folder))

            yield Source(running.pid, image.archive.stat().st_size, argv)
        finally:
            running.terminate()


STRATEGIES: dict[str, Strategy] = {"docket": docket, "direct": direct, "original": original}
