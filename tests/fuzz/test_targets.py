"""Each target over its seeds and a few hundred changes of them, in a process of its own."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docket.archive import read
from docket.oci.manifest import Platform
from docket.torrent.metainfo import parse_metainfo
from tests.fuzz.__main__ import NAMES
from tests.fuzz.archives import archive_seeds, member_seeds, members_of
from tests.fuzz.guard import INPUT_SECONDS, PEAK_MEGABYTES
from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS
from tests.fuzz.torrents import seeds as torrent_seeds

_ROOT = Path(__file__).parents[2]
_INPUTS = 400


def fuzz(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    # a small parent: libFuzzer counts the peak of the process that it was forked from
    shell = ("sh", "-c", '"$@"; exit $?', "sh")
    argv = [*shell, sys.executable, "-m", "tests.fuzz", *map(str, arguments)]
    return subprocess.run(argv, cwd=_ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("name", NAMES)
def test_no_input_breaks_a_target(name: str) -> None:
    """Hostile input: no error but docket's own, 5 s an input, 256 MB, no write outside."""
    done = fuzz(name, "--inputs", _INPUTS)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["inputs"] >= _INPUTS
    assert report["slowest"] < INPUT_SECONDS
    assert report["peak_mb"] < PEAK_MEGABYTES


def test_every_target_has_a_name() -> None:
    """The command knows all targets before it loads what they import; so does the Makefile."""
    assert set(NAMES) == set(TARGETS)
    (line,) = re.findall("^FUZZ_TARGETS := (.*)$", (_ROOT / "Makefile").read_text(), re.MULTILINE)
    assert line.split() == list(NAMES)


def test_the_same_inputs_every_time() -> None:
    """What was found once is found again."""
    seeds = [b"manifest 17", b"", b"other"]
    first = list(mutated(seeds, [b"word"], count=300))
    assert first == list(mutated(seeds, [b"word"], count=300))
    assert first[:3] == seeds
    assert len(set(first)) > 200


def test_seeds_of_archives_are_archives(tmp_path: Path) -> None:
    """The fuzzers begin with what is read to its end, not with what is refused at once."""
    for content in [*archive_seeds(), *map(members_of, member_seeds())]:
        image = read(
            io.BytesIO(content),
            spool=tmp_path,
            name="app:1.0",
            platform=Platform("linux", "amd64"),
        )
        assert image.layers


def test_seeds_of_torrents_are_torrents() -> None:
    """As above."""
    assert all(parse_metainfo(content).files for content in torrent_seeds())


def test_one_input_of_a_file(tmp_path: Path) -> None:
    """What the search kept can be tried again, alone."""
    path = tmp_path / "found"
    path.write_bytes(b"app:1.0")
    assert json.loads(fuzz("name", "--input", path).stdout)["inputs"] == 1


def test_the_search_runs_or_says_what_it_needs() -> None:
    """Without atheris the command names it; with it, it searches."""
    done = fuzz("range", "--seconds", 1)
    if importlib.util.find_spec("atheris"):
        assert done.returncode == 0, done.stderr
        assert "number_of_executed_units" in done.stderr
    else:
        assert done.returncode == 1
        assert "atheris" in done.stderr
        assert len(done.stderr.splitlines()) == 1
