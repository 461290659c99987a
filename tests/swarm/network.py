"""A registry and pulls, each a process on a host of its own, that tests watch, kill and restart."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docket.oci.digest import Digest
from docket.oci.reference import Reference
from docket.pieces import PieceHasher
from docket.remote.client import Client
from docket.torrent.metainfo import File, Metainfo, parse_metainfo
from tests.support.commands import DOCKET, Commands, registry
from tests.support.images import TinyImage
from tests.support.namespaces import Host, namespaces
from tests.support.processes import end, environment, tail, wait_until

PORT = 8000
SEEDING = ("--seed-for", "600")
"""Options of a pull that serves others for the rest of the test."""

DONE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A registry's folder that holds *image*, and the image's torrent."""

    location: Path
    image: TinyImage
    metainfo: Metainfo

    @property
    def size(self) -> int:
        """Bytes of the torrent's files."""
        return sum(file.size for file in self.metainfo.files)

    @property
    def layers(self) -> list[File]:
        """The files of the torrent that a pull fetches from the swarm."""
        sizes = sorted(self.metainfo.files, key=lambda file: file.size)
        return sizes[-len(self.image.layers) :]


def stored(folder: Path, image: TinyImage) -> Stored:
    """Push *image* into a registry of its own below *place*, which has ended since."""
    location = folder / "stored"
    with registry(location) as url:
        Commands(url, folder / "build")(
            "push", image.name, "--archive", image.archive(folder / "a")
        )
        with Client(url) as client:
            return Stored(
                location, image, parse_metainfo(client.torrent(Reference.parse(image.name))[0])
            )


class RegistryProcess:
    """``docket registry`` on a host; it can be killed and started again on the same store."""

    def __init__(self, host: Host, location: Path, *options: str) -> None:
        self.url = f"http://{host.address}:{PORT}"
        self._host = host
        self._log = location.with_suffix(".log")
        where = ("--bind", host.address, "-p", str(PORT), "-l", str(location))
        self._argv = [*DOCKET, "registry", "--json", *where, *options]

    def start(self) -> None:
        """Return once it answers."""
        with self._log.open("wb") as output:
            self._process = self._host.popen(self._argv, stdout=output, stderr=output)
        wait_until(self._answers, process=self._process, log=self._log)

    def kill(self) -> None:
        """End it at once, as a power cut would: seed, tracker and API are gone."""
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        return self._log.read_bytes().endswith(b"}\n")


class Pulling:
    """``docket pull --layers-only`` under way on a host, with a store of its own at *location*."""

    def __init__(
        self, host: Host, url: str, image: str, *options: str, location: Path, said: Path
    ) -> None:
        """*options* are more of the pull's; what it says goes to files named after *said*."""
        self.host = host
        self.location = location
        self._out = said.with_suffix(".out")
        self._log = said.with_suffix(".log")
        argv = [*DOCKET, "-h", url, "-l", str(location), "--json", "pull", image]
        with self._out.open("wb") as output, self._log.open("wb") as log:
            self.process: subprocess.Popen[bytes] = host.popen(
                [*argv, "--layers-only", *options], stdout=output, stderr=log, env=environment()
            )

    def report(self) -> dict[str, Any]:
        """What the pull says when it has all. It may seed on then."""
        wait_until(
            lambda: self.is_done(),
            process=self.process,
            log=self._log,
            within=DONE_SECONDS,
        )
        said: dict[str, Any] = json.loads(self._out.read_bytes())
        return said

    def failure(self) -> tuple[int, str]:
        """The exit code of a pull that is to fail, and what it wrote to standard error."""
        code = self.process.wait(DONE_SECONDS)
        return code, tail(self._log)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it, if it goes on."""
        end(self.process)

    def stored(self) -> int:
        """Bytes on the disk: sparse files count as what they hold."""
        return sum(
            file.stat().st_blocks * 512 for file in self._files() if not file.name.startswith(".")
        )

    def has_piece(self, metainfo: Metainfo, layer: File, number: int) -> bool:
        """Whether the host has a piece of a layer on its disk, right and whole."""
        path = self.location / "incoming" / metainfo.name / layer.path
        start = number * metainfo.piece_length
        with suppress(FileNotFoundError), path.open("rb") as file:
            file.seek(start)
            piece = file.read(min(metainfo.piece_length, layer.size - start))
            hasher = PieceHasher()
            hasher.update(piece)
            return hasher.finish() == metainfo.hashes(layer)[20 * number : 20 * (number + 1)]
        return False

    def stored_files(self) -> list[Path]:
        """The blobs that the host's store has adopted; manifest and config too."""
        return [path for path in (self.location / "blobs").rglob("*") if path.is_file()]

    def is_done(self) -> bool:
        """Whether the pull has said that it has all."""
        return self._out.read_bytes().endswith(b"\n")

    def _files(self) -> Iterator[Path]:
        for folder in ("incoming", "blobs"):
            yield from (path for path in (self.location / folder).rglob("*") if path.is_file())


@dataclass(slots=True)
class Network:
    """Hosts on links of one speed: the first has the registry, the *others* nothing yet."""

    registry: RegistryProcess
    registry_host: Host
    others: Sequence[Host]
    stored: Stored
    place: Path
    pulls: list[Pulling]

    def pull(self, host: Host, *options: str, location: Path | None = None) -> Pulling:
        """Begin to pull the image on *host*."""
        said = self.place / f"pull-{len(self.pulls)}"
        pull = Pulling(
            host,
            self.registry.url,
            self.stored.image.name,
            *options,
            location=location or said,
            said=said,
        )
        self.pulls.append(pull)
        return pull

    def torrent(self) -> Path:
        """The image's torrent as a file, as this registry gives it: with its tracker."""
        url = f"{self.registry.url}/torrents/{self.stored.image.name}.torrent"
        path = self.place / "image.torrent"
        program = "import sys, urllib.request as u; u.urlretrieve(*sys.argv[1:])"
        argv = [sys.executable, "-c", program, url, str(path)]
        self.others[0].run(argv, check=True, env=environment())
        return path

    def close(self) -> None:
        """End what still goes on."""
        for pull in self.pulls:
            pull.kill()
        self.registry.kill()


@contextmanager
def network(
    stored: Stored,
    folder: Path,
    *,
    hosts: int,
    mbit: float | None = None,
    options: Callable[[Sequence[Host]], Sequence[str]] = lambda _others: (),
) -> Iterator[Network]:
    """*hosts* hosts and one for the registry, which serves a copy of what is *stored*.

    *options* are those of the registry; they are asked for with the other hosts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    location = folder / "registry"
    subprocess.run(["cp", "-a", str(stored.location), str(location)], check=True)
    with namespaces(hosts + 1, mbit=mbit) as (first, *others):
        process = RegistryProcess(first, location, *options(others))
        process.start()
        made = Network(process, first, others, stored, folder, [])
        try:
            yield made
        finally:
            made.close()


def until(happened: Callable[[], bool], pulls: Sequence[Pulling] = ()) -> None:
    """Return once *happened*; no pull may have ended before without a report."""
    deadline = time.monotonic() + DONE_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        for pull in pulls:
            assert not pull.process.poll(), pull.failure()
        # the next look; what is waited for takes seconds
        time.sleep(0.02)


def fetch_seconds(reports: Sequence[dict[str, Any]]) -> float:
    """How long the slowest of these pulls fetched, without the start of its process."""
    return max(float(report["seconds"]["fetch"]) for report in reports)


def holds_the_image(pull: Pulling, stored: Stored) -> bool:
    """Whether the host has all layers, and nothing but what hashes to its name."""
    names = {path.name for path in pull.stored_files()}
    right = all(Digest.of_file(path).hex == path.name for path in pull.stored_files())
    return right and names >= {layer.digest.hex for layer in stored.layers if layer.digest}
