"""The report and the plots say what the results that are kept say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.suite import plots, report
from benchmarks.suite.sections import SECTIONS

RESULTS = Path(report.__file__).parents[1] / "results"
FAMILIES = ("small", "full")
PLOTS = {
    "sizes": ("MB that reach one host", "docket's limit"),
    "registry": ("MB that leave the registry", "changed layers, once"),
    "push": ("seconds", "a quarter of docker push"),
    "pull": ("seconds", "docker pull / 1.5", "docker load"),
    "ingest": ("MB/s of stored layers", "limit of hashing"),
    "gc": ("blobs in the index", "60 s"),
}
"""What each plot has on its axes and at its bound."""


@pytest.mark.parametrize("family", FAMILIES)
def test_the_report_is_that_of_the_results(family: str, tmp_path: Path) -> None:
    """Made anew from the JSON beside it, the report is the same."""
    folder = tmp_path / family
    folder.mkdir()
    for path in (*(RESULTS / family).glob("*.json"), *(RESULTS / family).glob("findings.md")):
        shutil.copy(path, folder)
    if (RESULTS / "fleet").is_dir():
        shutil.copytree(RESULTS / "fleet", tmp_path / "fleet")
    assert report.write(folder).read_text() == (RESULTS / family / "README.md").read_text()


def test_every_section_was_measured() -> None:
    """No section is left out of what is kept, and each says on what machine it was."""
    for section in SECTIONS.values():
        result = section.load(RESULTS / "small")
        assert result
        assert result.machine.commit


def test_the_results_are_light() -> None:
    """A clone has at most 1 MB of results, and no plot over 100 kB."""
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 1_000_000
    assert all(path.stat().st_size < 100_000 for path in files if path.suffix == ".svg")
    assert {path.suffix for path in files} == {".json", ".md", ".svg"}


def test_plots_have_units_and_bounds(tmp_path: Path) -> None:
    """Every plot is there, with a unit and a line for the goal."""
    for path in (RESULTS / "small").glob("*.json"):
        shutil.copy(path, tmp_path)
    plots.draw(tmp_path)
    for name, words in PLOTS.items():
        text = (tmp_path / f"{name}.svg").read_text()
        assert all(word in text for word in words)
