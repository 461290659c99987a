"""What the laboratory keeps of its runs: beside each other, and told on a page with figures."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest

from benchmarks.fleet import plot, report, results
from benchmarks.fleet.lab import Run, Scenario
from benchmarks.fleet.runner import Pull
from benchmarks.fleet.shorten import TooFewLayers, first_layers, made_of
from benchmarks.machine import Machine
from benchmarks.result_store import InvalidResults
from docket.archive import read
from docket.oci.digest import Digest
from tests.support.images import image_of, layer_tar
from tests.support.netns import Shape

RESULTS = Path(results.__file__).parents[1] / "results" / "fleet"
_PAYLOAD = 1_000_000
_LAYERS = {"fetch": 1.0, "verify": 0.1, "load": 0.0}


def test_the_page_is_that_of_the_kept_runs(tmp_path: Path) -> None:
    """Made anew from the JSON beside it, the page is the same; each figure on it is there."""
    shutil.copy(RESULTS / "fleet.json", tmp_path)
    results.STORE.write(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert page == (RESULTS / "README.md").read_text()
    shown = {line[line.index("(") + 1 : -1] for line in page.splitlines() if line[:2] == "!["}
    assert shown == {path.name for path in RESULTS.glob("*.svg")}


@pytest.mark.parametrize(
    "other",
    [
        {"mbit": 50.0},
        {"buffer_ms": 200.0},
        {"delay_ms": 10.0},
        {"loss": 1.0},
        {"mbit": 5.5, "loss": 0.5},
    ],
)
def test_runs_on_other_links_are_kept_apart(other: dict[str, float], tmp_path: Path) -> None:
    """Another link makes another row, another figure and another line; the same one replaces."""
    links = [Shape(5.0), Shape(**({"mbit": 5.0} | other))]
    for link in (*links, links[0]):
        _keep(_run(link), tmp_path)
    runs = results.STORE.load(tmp_path)
    assert len(runs) == 2
    made = plot.draw(runs, tmp_path)
    assert len(set(made)) == len(made) == 3
    assert all(path.stat().st_size for path in made)
    labels = {results.line(run) for run in runs}
    assert len(labels) == 2
    ratios = (tmp_path / "ratios.svg").read_text()
    assert all(label in ratios for label in labels)
    page = (tmp_path / "README.md").read_text()
    assert all(f"({path.name})" in page for path in made)


def test_other_images_of_a_size_are_kept_apart(tmp_path: Path) -> None:
    """Two releases of nearly the same size don't replace each other."""
    for image in ("app-1.0.tar", "app-1.1.tar"):
        _keep(_run(image=image), tmp_path)
    first, second = results.STORE.load(tmp_path)
    assert results.stem(first) != results.stem(second)
    assert results.line(first) != results.line(second)


def test_sizes_are_rounded_alike(tmp_path: Path) -> None:
    """A figure's name and the table tell the same megabytes."""
    _keep(_run(payload=51_671_816), tmp_path)
    (run,) = results.STORE.load(tmp_path)
    assert "-52MB-" in results.stem(run)
    assert "| 52 |" in (tmp_path / "README.md").read_text()


def test_runs_of_a_former_version_are_told(tmp_path: Path) -> None:
    """A row without image and machine stays, and the page says so of it."""
    old = report.as_json(_run(Shape(2.0)))
    del old["image"]
    (tmp_path / "fleet.json").write_text(json.dumps({"runs": [old]}))
    _keep(_run(), tmp_path)
    assert len(results.STORE.load(tmp_path)) == 2
    page = (tmp_path / "README.md").read_text()
    assert "commit and machine were not kept" in page
    assert "- commit 1234567+, 2026-01-02" in page


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"runs": [{"strategy": "docket"}]}'])
def test_a_file_of_others_is_refused(content: str, tmp_path: Path) -> None:
    """It is neither read as results nor written over."""
    path = tmp_path / "fleet.json"
    path.write_text(content)
    with pytest.raises(InvalidResults, match=r"fleet\.json"):
        _keep(_run(), tmp_path)
    assert path.read_text() == content


def test_labs_that_end_at_once_lose_no_run(tmp_path: Path) -> None:
    """Several write into one folder at a time, and each finds all of the others' runs."""
    start = multiprocessing.get_context("spawn")
    labs = [start.Process(target=_keep_some, args=(number, tmp_path)) for number in range(3)]
    for lab in labs:
        lab.start()
    for lab in labs:
        lab.join()
        assert lab.exitcode == 0
    assert len(results.STORE.load(tmp_path)) == 3 * _EACH
    assert {path.name for path in tmp_path.iterdir()} == {"fleet.json", "README.md"}


def test_a_run_that_was_stopped_is_worked_out(tmp_path: Path) -> None:
    """From what had come without headers: in the table, the JSON, the page and the comparison."""
    stopped = _run(strategy="direct", done=0, elapsed=10.0, arrived=round(_PAYLOAD * 1.05 / 2))
    row = report.as_json(stopped)
    assert row["share_done"] == pytest.approx(0.5)
    assert row["expected"] == pytest.approx(20.0)
    assert row["seconds"] == row["ratio"] == row["fetch_ratio"] == {}
    about = f"~{20.0 / stopped.bound:.1f}"
    assert report.row(stopped)[3:6] == ["-", "-", about]
    for run in (stopped, _run(elapsed=5.0), _run(strategy="original", payload=3 * _PAYLOAD)):
        _keep(run, tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert f"| {about}" in page
    assert "4 hosts, app.tar, 1 MB, 5 Mb/s, buffer 50 ms: the last host has it about 4.0" in page
    assert "sooner than by 4 pulls at once by `direct`" in page
    assert "the last host has it 2.0 times sooner than by 4 pulls at once by `original`" in page
    assert "--limit 10" in page


def test_hosts_that_are_done_are_not_all_hosts(tmp_path: Path) -> None:
    """A median is that of all hosts, and isn't told when fewer than half were done."""
    few, most = (_run(hosts=4, done=done, arrived=_PAYLOAD // 4) for done in (1, 3))
    assert report.as_json(few)["ratio"] == {}
    row = report.as_json(most)
    assert set(row["ratio"]) == set(row["seconds"]) == set(row["fetch_ratio"]) == {"p50"}
    assert report.row(most)[4] == "-"
    _keep(most, tmp_path)
    assert plot.draw(results.STORE.load(tmp_path), tmp_path)


def test_only_like_is_compared(tmp_path: Path) -> None:
    """Another link, another image or other hosts are no reason to call docket faster."""
    others = [
        _run(Shape(50.0), strategy="direct"),
        _run(strategy="direct", hosts=5),
        _run(strategy="original", image="other.tar"),
    ]
    for run in (_run(), *others):
        _keep(run, tmp_path)
    assert "sooner" not in (tmp_path / "README.md").read_text()


_EACH = 20


def _keep_some(number: int, folder: Path) -> None:
    for hosts in range(_EACH):
        _keep(_run(Shape(1.0 + number), hosts=hosts + 1), folder)


def _keep(run: Run, folder: Path) -> None:
    results.STORE.keep(report.as_json(run), _MACHINE, folder)


_MACHINE = Machine(
    processor="Z80",
    processors=2,
    memory=65_536,
    kernel="6.1",
    filesystem="tmpfs",
    commit="1234567+",
    date="2026-01-02",
    versions={},
)


def _run(
    link: Shape | None = None,
    *,
    strategy: str = "docket",
    image: str = "app.tar",
    payload: int = _PAYLOAD,
    hosts: int = 4,
    done: int | None = None,
    elapsed: float = 10.0,
    arrived: int = 0,
) -> Run:
    """A run in which the first *done* hosts (all, if None) took *elapsed* seconds, and to each
    of the others *came* bytes."""
    done = hosts if done is None else done
    pulls = [
        Pull(0.0, elapsed if number < done else None, {"seconds": _LAYERS}, 1.0, 1000)
        for number in range(hosts)
    ]
    return Run(
        strategy=strategy,
        scenario=Scenario(hosts, link or Shape(5.0), limit=elapsed),
        image=image,
        payload=payload,
        pieces=8,
        pulls=tuple(pulls),
        elapsed=elapsed,
        egress=payload,
        source_cpu=1.0,
        source_rss=1000,
        busy=0.5,
        clock=(0.0, elapsed),
        curves=tuple((0, round(payload * 1.05) if n < done else arrived) for n in range(hosts)),
    )


def test_a_shorter_image_has_the_first_layers(tmp_path: Path) -> None:
    """And its name tells what it was made of."""
    archive = tmp_path / "app-1.0.tar"
    layers = [layer_tar("base", size=40_000), layer_tar("app", size=5_000)]
    archive.write_bytes(image_of(layers, "app:1.0").docker_save())
    (tmp_path / "out").mkdir()
    short = first_layers(archive, 1, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == [short]
    (tmp_path / "spool").mkdir()
    image = read(short, spool=tmp_path / "spool")
    assert [layer.diff_id for layer in image.layers] == [Digest.of(layers[0])]
    assert made_of(short.name) == (archive.name, "1")
    assert made_of(archive.name) == (archive.name, "")
    with pytest.raises(TooFewLayers):
        first_layers(archive, 3, tmp_path / "out")
