"""The main job in a minute: releases of an image to two hosts at once, and what moved.

Starts a registry (API, tracker and seed in one process) on free ports, builds three releases of an
image out of this machine's own Python, pushes them, pulls two on hosts A and B at once, deploys the
third to the agents of these hosts, checks every image byte for byte, prints where the bytes came
from, and leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import sysconfig
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from docket.archive import LoadLayer, load_archive
from docket.commands.terminal import format_size, print_line, print_table
from docket.oci.digest import Digest
from docket.oci.manifest import dump
from tests.support.agent_process import agent_process
from tests.support.commands import Commands, registry

RELEASES = ("1.0", "2.0", "3.0")
HOSTS = ("A", "B")
_SEED_SECONDS = "3"


@dataclass(frozen=True, slots=True)
class Release:
    """An image archive, and the plain tars of its layers by name."""

    name: str
    archive: Path
    layers: dict[str, Path]


def main() -> None:
    """Run the demonstration; exits with an error when anything is not as it should be."""
    with tempfile.TemporaryDirectory(prefix="docket-demo-") as temporary:
        folder = Path(temporary)
        print_line("building three releases of an image out of this machine's Python …")
        releases = build(folder / "images")
        with registry(folder / "registry") as url:
            print_line(f"registry at {url}")
            rows: list[list[str]] = []
            moved = 0
            builder = Commands(url, folder / "builder")
            *pulled, deployed = releases
            for release in pulled:
                push(builder, release)
                for host, report in pull_on_all(url, release, folder).items():
                    check(url, release, folder, host)
                    rows += table_rows(release, host, report)
                    moved += report["payload"]["swarm"] + report["payload"]["http"]
            print_table(
                [
                    "IMAGE",
                    "HOST",
                    "LAYER",
                    "SIZE",
                    "HELD",
                    "FROM REGISTRY",
                    "FROM HOSTS",
                    "SECONDS",
                ],
                rows,
                right=frozenset({"SIZE", "HELD", "FROM REGISTRY", "FROM HOSTS", "SECONDS"}),
            )
            whole = sum(release.archive.stat().st_size for release in pulled) * len(HOSTS)
            print_line(
                f"these pulls moved {format_size(moved)}; the whole tar to every host is "
                f"{format_size(whole)}, {whole / moved:.1f} times as much"
            )
            push(builder, deployed)
            print_deploy(deploy_to_agents(url, deployed, folder))
            for host in HOSTS:
                check(url, deployed, folder, host)
        print_line("every layer on every host is byte for byte what was pushed")


def build(folder: Path) -> list[Release]:
    """Releases that share their base layers; each has its own application layer."""
    folder.mkdir(parents=True)
    standard = Path(sysconfig.get_path("stdlib"))
    packages = Path(sysconfig.get_path("purelib"))
    shared = {
        "python": tar_of(folder / "python.tar", "usr/lib/python", standard, skip="site-packages"),
        "packages": tar_of(folder / "packages.tar", "usr/lib/packages", packages),
    }
    releases = []
    for version in RELEASES:
        app = tar_of(
            folder / f"app-{version}.tar", "srv/app", Path(__file__).parent, version=version
        )
        layers = {**shared, "app": app}
        releases.append(archived(folder / f"{version}.tar", f"demo/app:{version}", layers))
    return releases


def tar_of(path: Path, prefix: str, source: Path, *, skip: str = "", version: str = "") -> Path:
    """A layer: the Python files below *source* under *prefix*, the same bytes every time."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for file in sorted(source.rglob("*.py")):
            inside = file.relative_to(source)
            if not (skip and skip in inside.parts) and "test" not in inside.parts:
                add(tar, f"{prefix}/{inside}", file.read_bytes())
        if version:
            add(tar, f"{prefix}/VERSION", version.encode())
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """One file, without anything of the machine in its header."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(content))


def archived(path: Path, name: str, layers: dict[str, Path]) -> Release:
    """The image archive that ``docker save`` would make of *layers*."""
    digests = [Digest.of_file(layer) for layer in layers.values()]
    config = dump(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["python3", "/srv/app"]},
            "rootfs": {"type": "layers", "diff_ids": [str(digest) for digest in digests]},
        }
    )
    members = [
        LoadLayer(digest, layer.stat().st_size, partial(open_bytes, layer))
        for digest, layer in zip(digests, layers.values(), strict=True)
    ]
    with path.open("wb") as file:
        file.writelines(load_archive(config, members, [name]))
    return Release(name, path, layers)


def open_bytes(path: Path) -> BinaryIO:
    """The file at *path*, to be read."""
    return path.open("rb")


def push(builder: Commands, release: Release) -> None:
    """Push a release, and say how much of it the registry lacked."""
    report = builder("push", release.name, "--archive", release.archive)
    print_line(
        f"pushed {release.name}: {format_size(report['uploaded'])} of "
        f"{format_size(release.archive.stat().st_size)} uploaded in {report['seconds']:.1f} s"
    )


def deploy_to_agents(url: str, release: Release, folder: Path) -> dict[str, Any]:
    """Run an agent on every host, deploy to all of them, and return the deploy's last status."""
    with ExitStack() as agents:
        for host in HOSTS:
            agents.enter_context(agent_process(url, folder / host, "--name", f"host-{host}"))
        print_line(f"agents run on hosts {' and '.join(HOSTS)}: docket deploy {release.name} --all")
        builder = Commands(url, folder / "builder")
        lines = builder.plain("--json", "deploy", release.name, "--all").splitlines()
    status: dict[str, Any] = json.loads(lines[-1])
    return status


def print_deploy(status: dict[str, Any]) -> None:
    """The deploy's table: a row for each host."""
    columns = ("name", "state", "total", "held", "from_registry", "from_hosts")
    sizes = columns[2:]
    rows = [
        [
            format_size(host.get(column, 0)) if column in sizes else host[column]
            for column in columns
        ]
        for host in status["hosts"]
    ]
    titles = ["HOST", "STATE", "SIZE", "HELD", "FROM REGISTRY", "FROM HOSTS"]
    print_table(titles, rows, right=frozenset(titles[2:]))
    seconds = status["ended"] - status["created"]
    done = status["counts"].get("done", 0)
    print_line(f"{done} of {status['total']} hosts have it, verified, after {seconds:.1f} s")
    if done != len(HOSTS):
        sys.exit("the deploy did not reach every host")


def pull_on_all(url: str, release: Release, folder: Path) -> dict[str, dict[str, Any]]:
    """Pull on every host at once, each into a store of its own, and go on serving the others."""

    def pull(host: str) -> dict[str, Any]:
        options = ("--layers-only", "--count-sources", "--seed-for", _SEED_SECONDS)
        return Commands(url, folder / host)("pull", release.name, *options)

    with ThreadPoolExecutor(len(HOSTS)) as pool:
        return dict(zip(HOSTS, pool.map(pull, HOSTS), strict=True))


def check(url: str, release: Release, folder: Path, host: str) -> None:
    """What *host* holds, written as an archive, has the layers that were built."""
    output = folder / f"{host}.tar"
    Commands(url, folder / host)("pull", release.name, "--output", output, "--no-swarm")
    wanted = {hash_of(path.open("rb")) for path in release.layers.values()}
    with tarfile.open(output) as tar:
        members = [tar.extractfile(member) for member in tar if member.name.startswith("blobs/")]
        pulled = {hash_of(file) for file in members if file}
    output.unlink()
    if not wanted <= pulled:
        sys.exit(f"host {host} has other bytes than were pushed")


def hash_of(file: Any) -> str:
    """The SHA-256 of an open file, which is closed."""
    with file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def table_rows(release: Release, host: str, report: dict[str, Any]) -> list[list[str]]:
    """A row for each layer: bytes held before, from the registry and from the other host."""
    rows = []
    for name, layer in zip(release.layers, report["layers"], strict=True):
        sources = layer.get("from", {"registry": 0, "hosts": 0})
        if layer["source"] == "http":
            sources = {"registry": layer["size"], "hosts": 0}
        held_bytes = layer["size"] if layer["source"] == "held" else 0
        cells = (layer["size"], held_bytes, sources["registry"], sources["hosts"])
        rows.append([release.name, host, name, *map(format_size, cells), f"{layer['seconds']:.2f}"])
    return rows


if __name__ == "__main__":
    main()
