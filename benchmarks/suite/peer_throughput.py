"""One peer to one peer on loopback, beside curl from uvicorn and from nginx, for the same file.

The file is the one layer of an image that docket's registry has; a host fetches it from the
registry's seed, and curl from a Starlette FileResponse under uvicorn and from nginx. All write to
files, in turn. Last, a small image is pulled by the command, from its start until it has ended.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from benchmarks.demo import add, archived
from benchmarks.summary import Summary
from docket.oci.digest import Digest
from docket.oci.reference import Reference
from docket.remote.client import Client
from docket.torrent.metainfo import Metainfo, layout_files, parse_metainfo
from docket.torrent.peer.session_options import SessionOptions
from docket.torrent.peer.swarm import Swarm
from tests.support import servers
from tests.support.commands import Commands
from tests.support.debian import require

MB = 1_000_000
SMALL = 10
"""MB of the image whose pull is timed as a whole."""

SMALL_SECONDS = 1.5
"""Seconds that it may take."""

WANTED = {"uvicorn": 0.6, "nginx": 0.35}
"""What docket is to reach of what curl gets from them."""

_READY_SECONDS = 20.0


def measure(folder: Path, *, size: int, runs: int) -> dict[str, Summary]:
    """Bytes a second by source, and seconds of a small pull under ``pull``; *size* in bytes."""
    require("nginx", "nginx-light")
    require("curl", "curl")
    rates: dict[str, list[float]] = {"docket": [], "uvicorn": [], "nginx": []}
    pulls: list[float] = []
    with ExitStack() as stack:
        server = stack.enter_context(servers.docket(folder / "registry"))
        push = Commands(server.url, folder / "builder")
        digest = _push(push, folder, "large:1", size)
        _push(push, folder, "small:1", SMALL * MB)
        blob = folder / "registry" / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex
        moved = blob.stat().st_size
        take = {
            "docket": _peer(server.url, digest),
            "uvicorn": _curl(stack.enter_context(_uvicorn(blob))),
            "nginx": _curl(stack.enter_context(_nginx(blob, folder / "nginx"))),
        }
        for _ in range(runs):
            for name, fetch in take.items():
                with tempfile.TemporaryDirectory(dir=folder) as temporary:
                    rates[name].append(moved / fetch(Path(temporary)))
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                began = time.monotonic()
                Commands(server.url, Path(temporary))("pull", "small:1", "--layers-only")
                pulls.append(time.monotonic() - began)
    return {name: Summary.of(values) for name, values in (rates | {"pull": pulls}).items()}


def _push(push: Commands, folder: Path, name: str, size: int) -> Digest:
    """An image of one layer of random bytes; the digest of its blob."""
    layer = folder / "layer.tar"
    with tarfile.open(layer, "w", format=tarfile.GNU_FORMAT) as tar:
        add(tar, "bytes", os.urandom(size))
    archive = archived(folder / "image.tar", name, {"bytes": layer}).archive
    report = push("push", name, "--archive", archive)
    return Digest.parse(report["layers"][0]["digest"])


def _peer(url: str, digest: Digest) -> Callable[[Path], float]:
    """Fetches the layer from the registry's seed; seconds from the start of the fetch."""
    with Client(url) as client:
        reference = Reference.parse("large:1")
        remote = client.manifest(reference)
        metainfo = parse_metainfo(client.torrent(Reference(reference.repository, remote.digest))[0])
        small = layout_files(remote.digest, media_type=remote.media_type, size=len(remote.content))

    def fetch(temporary: Path) -> float:
        folder = temporary / metainfo.name
        folder.mkdir()
        for name, content in small.items():
            (folder / name).write_bytes(content)
        with Swarm(SessionOptions(listen="127.0.0.1:0")) as swarm:
            began = time.monotonic()
            _fetch(swarm, metainfo, folder, digest)
            return time.monotonic() - began

    return fetch


def _fetch(swarm: Swarm, metainfo: Metainfo, folder: Path, digest: Digest) -> None:
    result = swarm.fetch(
        metainfo,
        folder,
        wanted=[digest],
        held=[],
        have={},
        on_progress=lambda _progress: None,
        on_complete=lambda _digest, _path: None,
    )
    if result.stalled:
        raise RuntimeError("the registry's seed gave nothing")


def _curl(url: str) -> Callable[[Path], float]:
    """Fetches *url* by curl; its seconds from start to end, as it tells them."""

    def fetch(temporary: Path) -> float:
        curl = ("curl", "--silent", "--fail", "--output", temporary / "file", "-w", "%{time_total}")
        return float(subprocess.run([*curl, url], capture_output=True, check=True).stdout)

    return fetch


@contextmanager
def _uvicorn(file: Path) -> Iterator[str]:
    port = _free_port()
    argv = [
        sys.executable,
        "-m",
        "benchmarks.suite.peer_throughput",
        "--serve",
        str(file),
        str(port),
    ]
    with subprocess.Popen(argv) as running:
        try:
            _wait_for(port, running)
            yield f"http://127.0.0.1:{port}/"
        finally:
            running.terminate()


@contextmanager
def _nginx(file: Path, folder: Path) -> Iterator[str]:
    port = _free_port()
    folder.mkdir()
    (folder / "file").symlink_to(file)
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log stderr crit; user root;\n"
        "events {}\n"
        f"http {{ sendfile on; access_log off; client_body_temp_path {folder}/body;\n"
        f"server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
    )
    argv = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(config)]
    with subprocess.Popen(argv) as running:
        try:
            _wait_for(port, running)
            yield f"http://127.0.0.1:{port}/file"
        finally:
            running.terminate()


def _serve(file: str, port: int) -> None:
    async def answer(_request: Request) -> FileResponse:
        return FileResponse(file)

    uvicorn.run(
        Starlette(routes=[Route("/", answer)]),
        port=port,
        http="httptools",
        loop="uvloop",
        log_level="error",
        access_log=False,
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, running: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        if running.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{running.args!r} didn't get ready")
        time.sleep(0.02)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.suite.peer_throughput", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--runs", type=int, default=7, help="runs of each (7)")
    parser.add_argument("--size", type=int, default=200, metavar="MB", help="of the layer (200)")
    parser.add_argument("--folder", type=Path, help="where all files go (a temporary folder)")
    parser.add_argument("--serve", nargs=2, metavar=("FILE", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve(options.serve[0], int(options.serve[1]))
        return
    with tempfile.TemporaryDirectory(prefix="docket-pair-", dir=options.folder) as folder:
        summaries = measure(Path(folder), size=options.size * MB, runs=options.runs)
    ratios = {name: summaries["docket"].median / summaries[name].median for name in WANTED}
    if options.json:
        figures = {name: asdict(summary) for name, summary in summaries.items()}
        print(json.dumps({**figures, "ratios": ratios}))
        return
    for name in ("docket", "uvicorn", "nginx"):
        print(f"{name:8} {summaries[name].shown(MB)} MB/s")
    print(f"docket / uvicorn {ratios['uvicorn']:.2f}, docket / nginx {ratios['nginx']:.2f}")
    print(f"a pull of {SMALL} MB, command and all: {summaries['pull'].shown(digits=2)} s")


if __name__ == "__main__":
    main()
