"""The fleet's laboratory: what it tells of a small run, and that it leaves nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import image_of, layer_tar
from tests.support.requirements import need, need_root

_FLEET = (sys.executable, "-m", "benchmarks.fleet")
_HOSTS = 3


@pytest.fixture
def lab(tmp_path: Path) -> Sequence[str]:
    """The command for a small image, without rate and results."""
    need("ip", "tc", "nsenter", "docker-registry", "skopeo")
    need_root()
    archive = tmp_path / "image.tar"
    layers = [layer_tar("base", size=4_000_000), layer_tar("app", size=500_000)]
    archive.write_bytes(image_of(layers, "fleet:1").docker_save())
    (tmp_path / "made").mkdir()
    where = ("--archive", str(archive), "--folder", str(tmp_path / "made"))
    return (*_FLEET, "--hosts", str(_HOSTS), "--no-plots", *where)


def test_a_fleet_gets_an_image_each_way(lab: Sequence[str], tmp_path: Path) -> None:
    """All hosts get all of it, through docket with less from the registry than each its own."""
    out = tmp_path / "out"
    done = subprocess.run(
        [*lab, "--mbit", "100", "--out", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    runs = {row["strategy"]: row for row in json.loads((out / "fleet.json").read_text())["runs"]}
    assert set(runs) == {"docket", "direct", "original"}
    for row in runs.values():
        _check(row)
    assert runs["direct"]["egress"]["payloads"] >= _HOSTS
    assert runs["docket"]["egress"]["payloads"] <= _HOSTS - 0.5
    assert set(runs["docket"]["phases"]) == {"start", "fetch", "verify", "load"}
    _check_gone(done.stderr, tmp_path)


def test_agents_get_the_layer_that_changed_by_one_deploy(
    lab: Sequence[str], tmp_path: Path
) -> None:
    """Hosts that hold the release before get only what changed, within the deploy's seconds."""
    before = tmp_path / "before.tar"
    layers = [layer_tar("base", size=4_000_000), layer_tar("app before", size=500_000)]
    before.write_bytes(image_of(layers, "fleet:0").docker_save())
    out = tmp_path / "out"
    rolling = ("--ways", "agent", "--before", str(before), "--at-once", "1")
    done = subprocess.run(
        [*lab, "--mbit", "100", *rolling, "--out", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((out / "fleet.json").read_text())["runs"]
    assert (row["strategy"], row["before"], row["at_once"]) == ("agent", "before.tar", 1)
    assert 450_000 < row["payload"] < 600_000
    _check(row)
    assert row["seconds"]["max"] <= row["elapsed"]
    assert row["last_fifth"] < 1
    _check_gone(done.stderr, tmp_path)


def test_an_interrupted_fleet_leaves_nothing_behind(lab: Sequence[str], tmp_path: Path) -> None:
    """After a SIGINT in the middle no namespace, process or file of it is left."""
    argv = [*lab, "--mbit", "0.5", "--ways", "docket"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr
        said = running.stderr.readline()
        assert "3 hosts" in said
        running.send_signal(signal.SIGINT)
        said += running.stderr.read()
    assert running.returncode == 1
    assert "interrupted" in said
    _check_gone(said, tmp_path)


def _check(row: dict[str, Any]) -> None:
    assert row["finished"]
    assert len(row["hosts_seconds"]) == len(row["curves"]) == _HOSTS
    assert 0 < row["seconds"]["p50"] <= row["seconds"]["p99"] <= row["seconds"]["max"]
    assert row["ratio"]["max"] > 1
    assert row["egress"]["payloads"] >= 1
    assert all(curve == sorted(curve) and curve[-1] >= row["payload"] for curve in row["curves"])
    assert row["source"]["peak_rss"] > 0 < row["peers"]["peak_rss"]["max"]
    assert row["peers"]["cpu"]["max"] > 0


def _check_gone(said: str, folder: Path) -> None:
    """Nothing is left of the networks that *said* names, nor of what was made at *place*."""
    families = [
        line.rpartition("/")[2].rpartition("-")[0]
        for line in said.splitlines()
        if "nsenter" in line
    ]
    assert families
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert not [name for name in families if name in listed.stdout]
    assert list((folder / "made").iterdir()) == []
    processes = [
        path for path in Path("/proc").glob("[0-9]*/cmdline") if str(folder) in _words(path)
    ]
    assert processes == []


def _words(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""  # it has ended meanwhile
