"""Pulls when things go wrong: no peers, interrupted, two at once, one host seeding another."""

from __future__ import annotations

import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from docket.oci.digest import Digest
from docket.oci.reference import Reference
from docket.remote.client import Client
from docket.store import Sample
from docket.torrent.tracker.peer_selection import REGISTRY_ZONE
from tests.store.samples import open_store
from tests.support.commands import DOCKET, Commands, registry
from tests.support.images import TinyImage, release

Host = Callable[[str], Commands]

SMALL = release("app:1.0", [("one", 400_000), ("two", 300_000), ("three", 200_000)])
LARGE = release("large:1.0", [("four", 60_000_000), ("five", 300_000)])

WAIT_SECONDS = 30.0
SLOW = 4_000_000  # bytes a second: so that an interruption is in the middle


def pushed(host: Commands, image: TinyImage, folder: Path) -> dict[str, Any]:
    """Push *image* from an archive."""
    archive = image.archive(folder / f"{Digest.of(image.name.encode()).short}.tar")
    return host("push", image.name, "--archive", archive)


def sizes(report: dict[str, Any]) -> int:
    """Bytes of all layers."""
    return sum(layer["size"] for layer in report["layers"])


def assert_holds(host: Commands, image: TinyImage, folder: Path) -> None:
    """What the host holds is, byte for byte, the image."""
    output = folder / "check.tar"
    report = host("pull", image.name, "--output", output, "--no-swarm")
    assert {layer["source"] for layer in report["layers"]} == {"held"}
    with tarfile.open(output) as tar:
        for layer in image.layers:
            member = tar.extractfile(Digest.of(layer).layout_path)
            assert member
            assert Digest.of(member.read()) == Digest.of(layer)
    output.unlink()


@contextmanager
def running(host: Commands, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command under way; killed at the end, if it still is."""
    argv = [*DOCKET, *host.options, "--json", *arguments]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        try:
            yield program
        finally:
            program.kill()


def test_without_peers_layers_come_over_http(tmp_path: Path) -> None:
    """When no peer sends anything for a while, HTTP completes the pull, and a line says why."""
    # a tracker that nobody runs: no peer is ever found
    with registry(tmp_path / "registry", "-t", "127.0.0.1:9") as url:
        host = Commands(url, tmp_path / "a")
        report = pushed(host, SMALL, tmp_path)
        pulled = host("pull", SMALL.name, "--layers-only", "--peer-timeout", "0.5")
        assert {layer["source"] for layer in pulled["layers"]} == {"http"}
        assert pulled["payload"] == {"swarm": 0, "http": sizes(report)}
        assert_holds(host, SMALL, tmp_path)
        second_host = Commands(url, tmp_path / "b")
        argv = [
            *DOCKET,
            *second_host.options,
            "pull",
            SMALL.name,
            "--layers-only",
            "--peer-timeout",
            "0.5",
        ]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        note = next(line for line in done.stderr.splitlines() if "over HTTP" in line)
        assert note.startswith("3 layers come over HTTP (the tracker can't be reached: ")
        assert "refused" in note


def test_no_swarm_means_http(host: Host, tmp_path: Path) -> None:
    """--no-swarm fetches over HTTP alone."""
    report = pushed(host("build"), SMALL, tmp_path)
    pulled = host("a")("pull", SMALL.name, "--layers-only", "--no-swarm")
    assert pulled["payload"] == {"swarm": 0, "http": sizes(report)}


def test_only_a_host_that_joins_the_swarm_becomes_a_gateway(
    host: Host, registry_url: str, tmp_path: Path
) -> None:
    """One that inspects an image, or fetches it over HTTP alone, leaves all places to others."""
    pushed(host("build"), SMALL, tmp_path)
    host("a")("inspect", SMALL.name)
    host("a")("pull", SMALL.name, "--layers-only", "--no-swarm")
    reference = Reference.parse(SMALL.name)
    with Client(registry_url) as client:
        client.torrent(reference)
        joined = [
            client.torrent(reference, is_peer=True)[1] for _ in range(REGISTRY_ZONE.first + 1)
        ]
        assert joined == [True] * REGISTRY_ZONE.first + [False]
        assert client.torrent(reference, is_peer=True, zone="far")[1]


def test_killed_pull_goes_on_where_it_was(host: Host, tmp_path: Path) -> None:
    """kill -9 in the middle of a layer: the next pull fetches only the pieces that are missing."""
    report = pushed(host("build"), LARGE, tmp_path)
    kept = killed_in_the_middle(host("a"), tmp_path / "a" / "incoming")
    pulled = host("a")("pull", LARGE.name, "--layers-only")
    # blocks of pieces that were not whole are fetched again
    assert pulled["payload"]["swarm"] < sizes(report) - kept / 2
    assert_holds(host("a"), LARGE, tmp_path)
    # the piece hashes too, which were not made from the whole file
    with open_store(tmp_path / "a") as store:
        assert store.maintenance.fsck(sample=Sample()).findings == []


def test_http_goes_on_where_a_killed_pull_was(host: Host, tmp_path: Path) -> None:
    """Over HTTP too only the byte ranges that are missing are fetched."""
    report = pushed(host("build"), LARGE, tmp_path)
    kept = killed_in_the_middle(host("a"), tmp_path / "a" / "incoming")
    pulled = host("a")("pull", LARGE.name, "--layers-only", "--no-swarm")
    assert 0 < pulled["payload"]["http"] < sizes(report) - kept / 2
    assert_holds(host("a"), LARGE, tmp_path)


def test_interrupted_pull_is_one_line_and_goes_on(host: Host, tmp_path: Path) -> None:
    """Ctrl-C ends with code 130 and one line; the next pull goes on."""
    pushed(host("build"), LARGE, tmp_path)
    folder = tmp_path / "a" / "incoming"
    options = ("pull", LARGE.name, "--layers-only", "--max-download", str(SLOW))
    with running(host("a"), *options) as pull:
        wait_for_bytes(pull, folder, 2_000_000)
        pull.send_signal(signal.SIGINT)
        _, said = pull.communicate()
        assert pull.returncode == 130
        assert said.decode().strip() == "docket: interrupted"
    assert host("a")("pull", LARGE.name, "--layers-only")["payload"]["swarm"]
    assert_holds(host("a"), LARGE, tmp_path)


def test_two_pulls_at_once_on_one_host(host: Host, tmp_path: Path) -> None:
    """They wait for each other; each layer is fetched once, and both end well."""
    report = pushed(host("build"), SMALL, tmp_path)
    with ThreadPoolExecutor(2) as pool:
        options = ("pull", SMALL.name, "--layers-only")
        both = list(pool.map(lambda _: host("a")(*options), range(2)))
    moved = sum(report["payload"]["swarm"] + report["payload"]["http"] for report in both)
    assert moved <= 1.02 * sizes(report) + 64 * 1024
    assert_holds(host("a"), SMALL, tmp_path)


def test_host_that_seeds_serves_others_and_frees_its_store(host: Host, tmp_path: Path) -> None:
    """--seed-for goes on after the pull, while other commands use the same store."""
    pushed(host("build"), LARGE, tmp_path)
    with running(host("a"), "pull", LARGE.name, "--layers-only", "--seed-for", "60") as pull:
        assert pull.stdout and pull.stderr
        # the report: the pull is over, the seeding begins
        assert pull.stdout.readline(), pull.stderr.read()
        assert host("a")("plan", LARGE.name, "--layers-only")["to_move"] == 0
        report = host("b")("pull", LARGE.name, "--layers-only", "--count-sources")
        assert sum(layer["from"]["hosts"] for layer in report["layers"]) > 0
        pull.send_signal(signal.SIGINT)
        assert pull.wait() == 0
    assert not list((tmp_path / "a" / "incoming").iterdir())


def test_pull_leaves_no_second_copy(host: Host, tmp_path: Path) -> None:
    """After a pull each layer lies on the disk once, under its digest."""
    report = pushed(host("build"), SMALL, tmp_path)
    host("a")("pull", SMALL.name, "--layers-only")
    files = [
        path for path in (tmp_path / "a").rglob("*") if path.is_file() and "blobs" in str(path)
    ]
    by_name = {f"sha256:{file.name}" for file in files}
    assert {layer["digest"] for layer in report["layers"]} <= by_name
    assert len(files) == len(SMALL.layers) + 2
    assert all(file.stat().st_nlink == 1 for file in files)


def killed_in_the_middle(host: Commands, folder: Path) -> int:
    """Begin to pull the large image and kill it; the bytes that are stored then."""
    options = ("pull", LARGE.name, "--layers-only", "--max-download", str(SLOW))
    with running(host, *options) as pull:
        wait_for_bytes(pull, folder, 6_000_000)
        pull.send_signal(signal.SIGKILL)
        pull.wait()
    return stored_below(folder)


def wait_for_bytes(pull: subprocess.Popen[bytes], folder: Path, count: int) -> None:
    """Return once *pull* has stored over *count* bytes; it must not end before."""
    deadline = time.monotonic() + WAIT_SECONDS
    while stored_below(folder) <= count:
        assert time.monotonic() < deadline, "the pull stores nothing"
        with suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"the pull ended with {pull.wait(timeout=0.02)}")


def stored_below(folder: Path) -> int:
    """Bytes on the disk below *folder*: sparse files count as what they hold."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
