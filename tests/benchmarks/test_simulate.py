"""The model of a fleet: what must hold of any run, and that its check against the lab can fail."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bound import HEADERS
from benchmarks.simulate import results, validate
from benchmarks.simulate.__main__ import simulate
from benchmarks.simulate.model import Model
from benchmarks.simulate.report import as_json
from benchmarks.simulate.scenario import Scenario
from docket.pieces import HASH_SIZE
from docket.torrent.tracker.hash_peers import RECIPIENTS
from docket.torrent.tracker.peer_selection import REGISTRY_ZONE

_SIMULATE = (sys.executable, "-m", "benchmarks.simulate")
_RESULTS = Path(results.__file__).parents[1] / "results" / "simulate"
_SMALL = Scenario(hosts=8, pieces=40, payload=40 << 17)


def test_every_host_ends_with_all_pieces() -> None:
    """Nothing is lost or made up: all have all, no faster than links, from one image or more."""
    model = Model(_SMALL)
    model.run()
    for host in model.hosts:
        assert all(host.have)
        assert host.came == _SMALL.pieces * _SMALL.units
        assert not any(host.missing)
        assert host.done is not None
        assert host.done - host.began >= _SMALL.seconds(_SMALL.payload * HEADERS)
    sent = sum(host.egress for host in (model.registry, *model.hosts))
    assert sent >= _SMALL.hosts * _SMALL.payload * HEADERS * 0.999
    assert model.registry.egress >= _SMALL.payload * HEADERS * 0.999
    assert model.registry.egress <= model.now * _SMALL.mbit * 1e6 / 8


def test_a_run_can_be_had_again() -> None:
    """The same seed gives the same run, another one another."""
    first, again = (simulate(_SMALL) for _ in range(2))
    assert (first.seconds, first.egress) == (again.seconds, again.egress)
    other_seed = simulate(Scenario(hosts=8, pieces=40, payload=40 << 17, seed=2))
    assert first.seconds != other_seed.seconds


def test_a_host_that_dies_holds_up_nobody() -> None:
    """Others have the image about as soon as without it, though it owned pieces."""
    all_live = simulate(_SMALL)
    dying = Scenario(hosts=8, pieces=40, payload=40 << 17, deaths=((3, 1.5),))
    model = Model(dying)
    model.run()
    others = [host for host in model.hosts if host.number != 3]
    assert model.hosts[3].dead
    assert model.hosts[3].done is None
    last = max(host.done - host.began for host in others if host.done is not None)
    assert all(all(host.have) for host in others)
    assert last < 1.5 * all_live.seconds[-1]


def test_more_hosts_take_little_longer() -> None:
    """With twice the hosts not twice the time goes by, as it would from the registry alone."""
    few, many = (
        simulate(Scenario(hosts=hosts, pieces=150, payload=150 << 17, grain=4)) for hosts in (6, 12)
    )
    assert few.finished
    assert many.finished
    assert many.seconds[-1] < 1.3 * few.seconds[-1]
    assert many.images < 2


def test_hosts_of_a_network_hear_of_each_other_first() -> None:
    """Only gateways of a zone have the registry as a peer, and still all hosts get all."""
    model = Model(Scenario(hosts=24, pieces=20, payload=20 << 17, zone=12))
    model.run()
    assert all(all(host.have) for host in model.hosts)
    assert 0 < len(model.registry.gives) < 24


def test_blocks_that_move_together_change_little() -> None:
    """The coarser model agrees with the finer one."""
    fine, coarse = (
        simulate(Scenario(hosts=12, pieces=150, payload=150 << 17, grain=grain)) for grain in (1, 2)
    )
    assert coarse.ratio["p50"] == pytest.approx(fine.ratio["p50"], rel=0.08)
    assert coarse.ratio["max"] == pytest.approx(fine.ratio["max"], rel=0.08)


def test_the_registry_tells_the_gates_alone() -> None:
    """Each host is told the torrent once, before it joins: most of them by others."""
    scenario = Scenario(hosts=60, pieces=200, payload=20 << 17, grain=2, spread=0.5)
    model = Model(scenario)
    model.run()
    torrent_bytes = scenario.torrent * HEADERS
    blocks = scenario.payload * HEADERS
    assert scenario.torrent > 200 * HASH_SIZE
    assert model.registry.egress >= REGISTRY_ZONE.first * torrent_bytes + blocks
    sent = sum(host.egress for host in (model.registry, *model.hosts))
    assert sent >= 60 * (torrent_bytes + blocks) * 0.999
    hash_peers = [host for host in model.hosts if host.sends_until]
    assert 60 - REGISTRY_ZONE.first >= len(hash_peers) >= (60 - REGISTRY_ZONE.first) / RECIPIENTS
    assert all(host.knows <= host.joined for host in model.hosts)


def test_a_faster_registry_begins_sooner() -> None:
    """Its link may be another one than the hosts'."""
    slow, fast = (
        simulate(Scenario(hosts=12, pieces=40, payload=40 << 17, registry_mbit=rate))
        for rate in (0.0, 100.0)
    )
    assert fast.seconds[-1] < slow.seconds[-1]


def test_a_run_that_is_stopped_says_so() -> None:
    """A limit ends a run, which then isn't finished."""
    outcome = simulate(Scenario(hosts=4, pieces=40, payload=40 << 17, limit=2.0))
    assert not outcome.finished
    assert outcome.seconds == ()
    assert as_json(outcome)["fetch_ratio"] == {}


@pytest.mark.parametrize("wrong", [{"hosts": 0}, {"mbit": 0.0}, {"grain": 0}, {"spread": -1.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    """A scenario refuses what can't be."""
    with pytest.raises(ValueError, match=r"must be|below zero"):
        Scenario(**({"hosts": 2} | wrong))


def test_the_check_tells_a_lab_that_differs(tmp_path: Path) -> None:
    """15 % off agrees, more doesn't, and the command says so by its exit code."""
    scenario = Scenario(hosts=8, pieces=40, payload=40 << 17, spread=0.5)
    ratio = simulate(scenario).ratio
    codes = {}
    for factor in (1.0, 0.9, 1.1, 0.8, 1.25):
        lab = tmp_path / f"{factor}.json"
        lab.write_text(_lab(scenario, ratio["p50"] * factor, ratio["max"] * factor))
        codes[factor] = _check(lab).returncode
    assert codes == {1.0: 0, 0.9: 0, 1.1: 0, 0.8: 1, 1.25: 1}


def test_the_check_fails_by_the_last_host_alone(tmp_path: Path) -> None:
    """A lab with one straggler differs, though its median agrees."""
    scenario = Scenario(hosts=8, pieces=40, payload=40 << 17, spread=0.5)
    outcome = simulate(scenario)
    lab = tmp_path / "fleet.json"
    lab.write_text(_lab(scenario, outcome.ratio["p50"], outcome.ratio["max"] * 1.5))
    (measured,) = validate.read(lab, seed=1, grain=1)
    assert not validate.agrees(measured, outcome)


def test_the_check_refuses_another_file(tmp_path: Path) -> None:
    """What isn't the lab's, or has no run of docket that ended, is an error and no agreement."""
    for content in ("{}", '{"runs": []}', '{"runs": [{"strategy": "direct"}]}'):
        lab = tmp_path / "fleet.json"
        lab.write_text(content)
        done = _check(lab)
        assert done.returncode == 1
        assert done.stderr.startswith("benchmarks.simulate: ")
        assert "Traceback" not in done.stderr


def test_the_page_is_that_of_the_kept_runs(tmp_path: Path) -> None:
    """Made anew from the JSON beside it, the page is the same."""
    shutil.copy(_RESULTS / "simulate.json", tmp_path)
    results.STORE.write(tmp_path)
    assert (tmp_path / "README.md").read_text() == (_RESULTS / "README.md").read_text()
    assert (_RESULTS / "simulate.svg").exists()


def test_runs_add_up(tmp_path: Path) -> None:
    """Another scenario makes another row and another line, the same one takes its place."""
    common = ("--hosts", "2", "3", "--pieces", "20", "--payload", "2621440", "--out", str(tmp_path))
    for words in ((), ("--look", "0.5"), ("--look", "0.5", "--grain", "8"), ()):
        subprocess.run([*_SIMULATE, *common, *words], check=True)
    runs = results.STORE.load(tmp_path)
    assert [(run["hosts"], run["look"], run["grain"]) for run in runs] == [
        *((2, 0.2, 1), (3, 0.2, 1)),
        *((2, 0.5, 1), (2, 0.5, 8), (3, 0.5, 1), (3, 0.5, 8)),
    ]
    assert all(run["machine"]["date"] for run in runs)
    page = (tmp_path / "README.md").read_text()
    for look, grain in (("0.2", 1), ("0.5", 1), ("0.5", 8)):
        options = (
            "--hosts 2 3 --mbit 10 --registry-mbit 0 --payload 2621440 --pieces 20 --spread 1 "
            f"--delay 50 --zone 0 --look {look} --seed 1 --grain {grain} --limit 3600"
        )
        assert f"`python -m benchmarks.simulate {options}`" in page
    drawn = (tmp_path / "simulate.svg").read_text()
    assert "one network, look 0.2" in drawn
    assert "one network, look 0.5" in drawn


def test_results_are_kept(tmp_path: Path) -> None:
    """The table has a row for each number of hosts, and the file the same values."""
    argv = (*_SIMULATE, "--hosts", "2", "4", "--pieces", "20", "--payload", "2621440")
    done = subprocess.run(
        [*argv, "--out", str(tmp_path), "--no-plots"], capture_output=True, text=True, check=True
    )
    runs = json.loads((tmp_path / "simulate.json").read_text())["runs"]
    assert [run["hosts"] for run in runs] == [2, 4]
    _, *rows = done.stdout.splitlines()
    for line, run in zip(rows, runs, strict=True):
        cells = line.split()
        assert cells[0] == str(run["hosts"])
        assert float(cells[2]) == pytest.approx(run["fetch_ratio"]["p50"], abs=1e-3)
        assert float(cells[5]) == pytest.approx(run["egress"]["payloads"], abs=1e-3)


def _lab(scenario: Scenario, p50: float, most: float) -> str:
    """What `benchmarks.fleet` would have written of such a run."""
    run = {
        "strategy": "docket",
        "finished": True,
        "hosts": scenario.hosts,
        "shape": {"mbit": scenario.mbit},
        "pieces": scenario.pieces,
        "payload": scenario.payload,
        "phases": {"start": {"p50": 1.0, "max": 1.0 + scenario.spread / 2}},
        "fetch_ratio": {"p50": p50, "max": most},
        "egress": {"payloads": 1.2},
    }
    return json.dumps({"runs": [run]})


def _check(lab: Path) -> subprocess.CompletedProcess[str]:
    argv = [*_SIMULATE, "--check", str(lab)]
    return subprocess.run(argv, capture_output=True, text=True)
