"""Other BitTorrent clients fetch images from a registry, and what they get is an OCI layout."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from docket.compression import GZIP, ZSTD
from docket.oci.digest import Digest
from docket.oci.manifest import dump
from docket.oci.reference import Reference
from docket.progress import Silent
from docket.remote.client import Client
from docket.torrent.metainfo import Metainfo, parse_metainfo
from docket.transfer.push import Compression, push
from tests.support.bittorrent import ARIA2, CLIENTS, CTORRENT, download
from tests.support.bittorrent import Client as ForeignClient
from tests.support.namespaces import Host, namespaces
from tests.support.processes import environment, short_folder, started
from tests.support.requirements import need
from tests.support.trackers import opentracker

_IMAGE = "app:1.0"
_PORT = 8000
_TRACKER_PORT = 6969

EMBEDDED, OUTSIDE = "embedded tracker", "opentracker"


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer to push."""

    content: bytes

    @property
    def diff_id(self) -> Digest:
        """Of the tar."""
        return Digest.of(self.content)

    @property
    def size(self) -> int:
        """Of the tar, in bytes."""
        return len(self.content)

    def open_plain(self) -> BinaryIO:
        """The tar."""
        return io.BytesIO(self.content)


@dataclass(frozen=True, slots=True)
class Stored:
    """A registry's folder with an image in it, and the image's torrent."""

    location: Path
    metainfo: Metainfo

    @property
    def info_hash(self) -> str:
        """As trackers' lists have it."""
        return self.metainfo.info_hash.hex()


@dataclass(frozen=True, slots=True)
class Network:
    """Two hosts: a registry that serves at *url* on the first, and nothing on the second."""

    url: str
    client: Host
    stored: Stored

    @property
    def torrent_url(self) -> str:
        """The address that people give to their client."""
        return f"{self.url}/torrents/{_IMAGE}.torrent"

    def torrent(self, folder: Path) -> Path:
        """The torrent as a file, fetched by the second host."""
        path = folder / "image.torrent"
        program = "import sys, urllib.request as u; u.urlretrieve(*sys.argv[1:])"
        argv = [sys.executable, "-c", program, self.torrent_url, str(path)]
        self.client.run(argv, check=True, env=environment())
        return path


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """An image with gzip layers, as all engines and archives take them."""
    return _stored(tmp_path_factory.mktemp("registry"), Compression(GZIP))


def _stored(location: Path, compression: Compression) -> Stored:
    """An image of some layers, pushed into a registry that has ended since."""
    reference = Reference.parse(_IMAGE)
    layers = [_layer(name, size) for name, size in (("a", 3_000_000), ("b", 700_001), ("c", 20))]
    config = dump(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
        }
    )
    with _registry(location) as url, Client(url) as client:
        push(
            client,
            reference,
            config=config,
            layers=layers,
            compression=compression,
            progress=Silent(),
        )
        return Stored(location, parse_metainfo(client.torrent(reference)[0]))


@contextmanager
def _network(stored: Stored, tracker: str, tmp_path: Path) -> Iterator[Network]:
    with ExitStack() as stack:
        first, second = stack.enter_context(namespaces(2))
        url = f"http://{first.address}:{_PORT}"
        options = ["--bind", first.address, "-p", str(_PORT)]
        if tracker == OUTSIDE:
            outside = opentracker(
                address=first.address,
                port=_TRACKER_PORT,
                allowed=[stored.info_hash],
                wrapper=first.enter,
            )
            stack.enter_context(outside)
            options += ["-t", f"{first.address}:{_TRACKER_PORT}"]
        location = _copy(stored.location, tmp_path / "store")
        stack.enter_context(_serving(location, options, wrapper=first.enter))
        yield Network(url, second, stored)


@pytest.mark.parametrize("tracker", [EMBEDDED, OUTSIDE])
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.command)
def test_a_client_fetches_a_valid_layout(
    stored: Stored, client: ForeignClient, tracker: str, tmp_path: Path
) -> None:
    """Any client gets the image with its torrent alone: a layout that skopeo reads and copies."""
    need("skopeo")
    with (
        _network(stored, tracker, tmp_path) as network,
        download(client, network.client, network.torrent(tmp_path), tmp_path / "there") as going,
    ):
        layout = going.finish(stored.metainfo)
    seen = json.loads(_skopeo("inspect", f"oci:{layout}"))
    assert seen["Layers"] == [layer["digest"] for layer in _manifest(layout)["layers"]]
    assert seen["Digest"] == f"sha256:{stored.metainfo.name}"
    archive = tmp_path / "image.tar"
    _skopeo("copy", f"oci:{layout}", f"docker-archive:{archive}:{_IMAGE}")
    with tarfile.open(archive) as opened:
        (entry,) = json.load(_member(opened, "manifest.json"))
        assert entry["RepoTags"] == [f"docker.io/library/{_IMAGE}"]
        assert len(entry["Layers"]) == 3


def test_a_layout_of_zstd_layers_is_valid_too(tmp_path: Path) -> None:
    """Layers come as they were pushed; docker archives can't hold zstd, OCI layouts can."""
    need("skopeo")
    stored = _stored(tmp_path / "registry", Compression(ZSTD))
    with (
        _network(stored, EMBEDDED, tmp_path) as network,
        # aria2 follows the URL of a torrent by itself
        download(ARIA2, network.client, network.torrent_url, tmp_path / "there") as going,
    ):
        layout = going.finish(stored.metainfo)
    (kind,) = {layer["mediaType"] for layer in _manifest(layout)["layers"]}
    assert kind.endswith("+zstd")
    copy = tmp_path / "copy"
    _skopeo("copy", f"oci:{layout}", f"oci:{copy}:{_IMAGE}")
    assert _blobs(copy) == _blobs(layout)


def test_a_client_that_has_all_is_a_seed(stored: Stored, tmp_path: Path) -> None:
    """The registry's tracker counts a foreign client among the seeds once it has all."""
    with (
        _network(stored, EMBEDDED, tmp_path) as network,
        download(CTORRENT, network.client, network.torrent(tmp_path), tmp_path / "there") as going,
    ):
        going.finish(stored.metainfo)
        going.wait(lambda: _seeds(network) >= 1)


def _seeds(network: Network) -> int:
    """How many seeds the registry's tracker counts."""
    program = (
        "import sys, urllib.request as u, urllib.parse as p, libtorrent as lt;"
        "h = bytes.fromhex(sys.argv[2]);"
        "a = u.urlopen(sys.argv[1] + '/scrape?info_hash=' + p.quote(h)).read();"
        "print(lt.bdecode(a)[b'files'].get(h, {}).get(b'complete', 0))"
    )
    argv = [sys.executable, "-c", program, network.url, network.stored.info_hash]
    done = network.client.run(argv, check=True, capture_output=True, env=environment())
    return int(done.stdout)


@contextmanager
def _registry(location: Path) -> Iterator[str]:
    """A registry on loopback, at the address that it says."""
    with _serving(location, ["--bind", "127.0.0.1", "-p", "0"]) as url:
        yield url


@contextmanager
def _serving(
    location: Path, options: Sequence[str], *, wrapper: Sequence[str] = ()
) -> Iterator[str]:
    """A registry's process, entered when it said where it is."""
    command = [sys.executable, "-m", "docket.cli", "registry", "--json", "-l", str(location)]
    with short_folder() as folder:
        log = folder / "log"
        argv = [*wrapper, *command, *options]
        ready = lambda: bool(_said(log))  # noqa: E731
        with started(argv, log=log, ready=ready, env=environment()):
            yield str(_said(log)["url"])


def _said(log: Path) -> dict[str, Any]:
    """The registry's line of JSON, once it is whole."""
    for line in log.read_text().splitlines(keepends=True):
        if line.startswith("{") and line.endswith("\n"):
            said: dict[str, Any] = json.loads(line)
            return said
    return {}


def _manifest(layout: Path) -> dict[str, Any]:
    """The manifest of the image in a torrent's folder, which is named after it."""
    manifest: dict[str, Any] = json.loads((layout / "blobs" / "sha256" / layout.name).read_bytes())
    return manifest


def _blobs(layout: Path) -> list[str]:
    """The names of an OCI layout's blobs."""
    return sorted(path.name for path in (layout / "blobs" / "sha256").iterdir())


def _skopeo(command: str, *words: str) -> bytes:
    argv = ["skopeo", "--insecure-policy", command, *words]
    done = subprocess.run(argv, check=False, capture_output=True, env=environment())
    assert not done.returncode, done.stderr.decode()
    return done.stdout


def _member(archive: tarfile.TarFile, name: str) -> BinaryIO:
    member = archive.extractfile(name)
    assert member
    return member  # type: ignore[return-value]


def _copy(source: Path, target: Path) -> Path:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
    return target


def _layer(name: str, size: int) -> Layer:
    """A tar of one file of random bytes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = size
        archive.addfile(member, io.BytesIO(os.urandom(size)))
    return Layer(packed.getvalue())
