"""The measuring itself: spreads, what a command takes, and bounds of a release."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import resources
from benchmarks.suite import bounds
from benchmarks.suite.index import measure as measure_index
from benchmarks.summary import Summary
from tests.support.image_family.steps import STEPS
from tests.support.images import image_of, tar
from tests.support.requirements import need

MB = 1_000_000


def test_a_spread_is_the_median_with_its_extremes() -> None:
    """Shown in the unit that is asked for; one figure alone when there is no spread."""
    assert Summary.of([3 * MB, 1 * MB, 8 * MB]) == Summary(3 * MB, 1 * MB, 8 * MB, 3)
    assert Summary.of([3 * MB, 1 * MB, 8 * MB]).shown(MB, 1) == "3.0 (1.0–8.0)"
    assert Summary.of([2, 2]).shown() == "2"


def test_usage_is_that_of_the_command_alone(tmp_path: Path) -> None:
    """A command that fills 200 MB and works a while: its memory and time, not the test's."""
    memory = bytes(1) * 300 * MB
    idle = resources.of_command([sys.executable, "-c", ""])
    assert 0 < idle.peak_rss < 100 * MB < len(memory)
    work = "held = b'x' * 200_000_000; print(sum(range(3_000_000)))"
    busy = resources.of_command([sys.executable, "-c", work], output=tmp_path / "out")
    assert 200 * MB < busy.peak_rss < 400 * MB
    assert idle.cpu < busy.cpu <= busy.wall * 2
    assert (tmp_path / "out").read_text() == f"{sum(range(3_000_000))}\n"


def test_a_command_that_fails_is_an_error() -> None:
    """What it complained of comes along."""
    with pytest.raises(subprocess.CalledProcessError) as caught:
        resources.of_command([sys.executable, "-c", "import sys; sys.exit('no')"])
    assert caught.value.stderr == b"no\n"


def test_bounds_of_a_release(tmp_path: Path) -> None:
    """Where one small file changed, finer methods bring that file and little more."""
    need("zstd")
    old = {f"srv/{n}": random.Random(n).randbytes(400_000) for n in range(4)}
    new = old | {"srv/1": random.Random("new").randbytes(10_000)}
    base = tar({"bin/base": random.Random("base").randbytes(500_000)})
    images = {}
    for step in STEPS:
        app = old if step is STEPS[0] else new
        images[step.image] = tmp_path / f"{step.image}.tar"
        images[step.image].write_bytes(image_of([base, tar(app)], step.image).docker_archive())
    folder = tmp_path / "scratch"
    folder.mkdir()
    to_host = {
        (bound.step, bound.method): bound.to_host for bound in bounds.measure(images, folder)
    }
    first, second, third = (step.name for step in STEPS[:3])
    for method in (bounds.FILES, bounds.CHUNKS, bounds.PATCH):
        assert 2_000_000 < to_host[first, method] < 2_300_000
        assert to_host[third, method] == 0
    assert 10_000 < to_host[second, bounds.FILES] < 12_000
    assert 10_000 < to_host[second, bounds.PATCH] < 12_000
    # the chunks that the change is in, of 256 KiB at most each
    assert 10_000 < to_host[second, bounds.CHUNKS] < 3 * 256 * 1024


def test_an_index_is_measured(tmp_path: Path) -> None:
    """One image of ten blobs in a hundred is garbage, and gc sweeps just those."""
    row = measure_index(tmp_path / "store", 2000)
    assert row.blobs == 2000
    assert row.gc_freed_blobs == 20
    assert row.blob_lookups > 0
    assert not list((tmp_path / "store" / "trash").iterdir())
