"""The benchmark of one peer to one peer: what it measures, on a file too small to mean much."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.requirements import need


def test_a_pair_is_measured_beside_curl(tmp_path: Path) -> None:
    """Every source has a rate, and the small pull a time within what a person waits for."""
    need("curl", "nginx")
    argv = [
        sys.executable,
        "-m",
        "benchmarks.suite.peer_throughput",
        "--json",
        "--runs",
        "1",
        "--size",
        "8",
    ]
    done = subprocess.run(
        [*argv, "--folder", str(tmp_path)], capture_output=True, text=True, check=True
    )
    printed = json.loads(done.stdout)
    assert set(printed) == {"docket", "uvicorn", "nginx", "pull", "ratios"}
    assert all(printed[name]["median"] > 0 for name in ("docket", "uvicorn", "nginx"))
    assert 0 < printed["pull"]["median"] < 30
    assert list(tmp_path.iterdir()) == []
