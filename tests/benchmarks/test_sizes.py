"""What a deploy of the small family moves, counted at network interfaces: bytes, and no times."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fleet import strategies
from benchmarks.suite.sizes import Row, walk
from tests.support.image_family.build import build
from tests.support.image_family.steps import IMAGES, STEPS
from tests.support.requirements import cache, need

HOSTS = 3

Rows = dict[tuple[str, int], Row]
"""Rows by step and hosts."""


@pytest.fixture(scope="module")
def family() -> dict[str, Path]:
    """The small family of real images."""
    need("mmdebstrap", "npm")
    return build(cache() / "images", small=True, only=IMAGES)


@pytest.fixture(scope="module")
def docket(family: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """All steps with docket, for one host and for some at once."""
    folder = tmp_path_factory.mktemp("docket")
    level = strategies.DEFAULT_LEVEL
    rows = walk("docket", strategies.docket(level), family, folder, fleets=(1, HOSTS))
    return {(row.step, row.hosts): row for row in rows}


@pytest.mark.parametrize("step", [step.name for step in STEPS])
def test_hosts_get_the_changed_layers_and_little_more(docket: Rows, step: str) -> None:
    """≤ 1.02 × the changed layers' stored bytes + 64 KiB reach a host, and none come twice."""
    for hosts in (1, HOSTS):
        row = docket[step, hosts]
        assert row.changed <= row.to_host.low
        assert row.to_host.median <= row.limit
        assert row.changed <= row.from_registry <= hosts * row.limit


def test_a_release_is_small_beside_the_image(docket: Rows, family: dict[str, Path]) -> None:
    """A new application layer is under a tenth of a cold pull, and that half of the archive."""
    cold, app = (docket[step.name, 1].to_host.median for step in STEPS[:2])
    assert app < cold / 10
    assert cold < family[STEPS[0].image].stat().st_size / 2


def test_docket_moves_no_more_than_gzip_layers(
    docket: Rows, family: dict[str, Path], tmp_path: Path
) -> None:
    """In every step fewer bytes reach a host than from docker-registry with gzip layers."""
    need("docker-registry", "skopeo")
    for row in walk("gzip", strategies.gzip_layers, family, tmp_path, fleets=(1,)):
        assert docket[row.step, 1].to_host.median < row.to_host.median
