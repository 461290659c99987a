"""Commands on a host whose store an agent owns: they go through it, and look as they do without."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.test_agent import push, release
from tests.support.agent_process import AgentProcess, agent_process
from tests.support.commands import DOCKET, CommandFailed, Commands, environment, registry


@pytest.fixture
def docket(tmp_path: Path) -> Iterator[Commands]:
    """Commands against a registry that has app:1.0, on a host whose store is at ``host``."""
    with registry(tmp_path / "registry") as url:
        commands = Commands(url, tmp_path / "host")
        push(commands, tmp_path, release("1.0"), "app:1.0")
        yield commands


@pytest.fixture
def agent(docket: Commands, tmp_path: Path) -> Iterator[AgentProcess]:
    """The agent that owns the host's store."""
    with agent_process(docket.url, tmp_path / "host") as running:
        yield running


def without_seconds(report: dict[str, object]) -> dict[str, object]:
    """A pull's report without what differs from run to run."""
    layers = report["layers"]
    assert isinstance(layers, list)
    rows = [{key: row[key] for key in ("digest", "diff_id", "size")} for row in layers]
    return {"name": report["name"], "digest": report["digest"], "layers": rows}


@pytest.mark.usefixtures("agent")
def test_a_pull_through_the_agent_reports_what_one_without_reports(
    docket: Commands, tmp_path: Path
) -> None:
    """Same image, same layers; what the agent then holds is not moved again."""
    alone = Commands(docket.url, tmp_path / "alone")
    expected = alone("pull", "app:1.0", "--layers-only")
    report = docket("pull", "app:1.0", "--layers-only", "--count-sources")
    assert without_seconds(report) == without_seconds(expected)
    assert sum(report["payload"].values()) >= sum(layer["size"] for layer in report["layers"])
    again = docket("pull", "app:1.0", "--layers-only")
    assert again["payload"] == {"swarm": 0, "http": 0}
    assert {layer["source"] for layer in again["layers"]} == {"held"}


@pytest.mark.usefixtures("agent")
def test_archives_through_the_agent_have_the_same_bytes(docket: Commands, tmp_path: Path) -> None:
    """Into a file and into a pipe, which the command opens and the agent writes."""
    alone = Commands(docket.url, tmp_path / "alone")
    expected = alone.plain("pull", "app:1.0", "--output", "-")
    assert docket.plain("pull", "app:1.0", "--output", "-") == expected
    docket("pull", "app:1.0", "--output", tmp_path / "app.tar")
    assert (tmp_path / "app.tar").read_bytes() == expected


def test_the_store_of_an_agent_is_listed_planned_checked_and_collected(
    docket: Commands, agent: AgentProcess
) -> None:
    """images, plan, fsck and gc of this host work on the store that the agent has open."""
    assert docket("images", "--local") == {"images": []}
    planned = docket("plan", "app:1.0", "--layers-only")
    assert planned["to_move"] == planned["size"] > 0
    agent.pull("app", "1.0")
    assert docket("plan", "app:1.0", "--layers-only")["to_move"] == 0
    (row,) = docket("images", "--local")["images"]
    (at_registry,) = docket("images")["images"]
    assert (row["name"], row["tag"], row["digest"]) == ("app", "1.0", at_registry["digest"])
    checked = docket("fsck", "--local", "--read-data")
    assert checked["findings"] == []
    assert checked["read_blobs"] == checked["blobs"] > 0
    assert docket("gc", "--local", "--dry-run")["kept_tags"] == 1


def test_damage_that_the_agent_finds_ends_fsck_with_8(
    docket: Commands, agent: AgentProcess
) -> None:
    """As without an agent; the next pull fetches what is in quarantine."""
    docket("pull", "app:1.0", "--layers-only")
    manifest = agent.pull("app", "1.0")
    digest = manifest["layers"][0]["digest"].partition(":")[2]
    blob = agent.location / "blobs" / "sha256" / digest[:2] / digest
    blob.chmod(0o600)
    with blob.open("r+b") as file:
        file.write(b"rotten")
    with pytest.raises(CommandFailed) as failed:
        docket("fsck", "--local", "--read-data")
    assert failed.value.code == 8
    assert agent.pull("app", "1.0") == manifest


@pytest.mark.parametrize(
    ("arguments", "engine", "code"),
    [
        (("pull", "none:1.0", "--layers-only"), "", 3),
        (("pull", "app:1.0"), "unix:///nowhere.sock", 6),
        (("pull", "app:1.0", "--output", "/nowhere/app.tar"), "", 3),
        (("plan", "app:9.9", "--layers-only"), "", 3),
        (("fsck", "--local", "--rebuild-index"), "", 7),
    ],
)
def test_errors_through_the_agent_have_the_codes_and_texts_of_those_without(
    docket: Commands, tmp_path: Path, arguments: tuple[str, ...], engine: str, code: int
) -> None:
    """The agent's error is the command's."""
    with agent_process(docket.url, tmp_path / "host"):
        through = run(docket, *arguments, engine=engine)
    assert through.returncode == code, through.stderr
    if code != 7:
        alone = run(Commands(docket.url, tmp_path / "alone"), *arguments, engine=engine)
        assert (through.returncode, through.stderr) == (alone.returncode, alone.stderr)


@pytest.mark.usefixtures("agent")
def test_a_pull_from_another_registry_goes_through_the_agent_too(
    docket: Commands, tmp_path: Path
) -> None:
    """-h says from which; without it, it is the agent's."""
    with registry(tmp_path / "other") as url:
        second_host = Commands(url, docket.location)
        push(Commands(url, tmp_path / "builder"), tmp_path, release("2.0"), "app:2.0")
        assert second_host("pull", "app:2.0", "--layers-only")["name"] == "app:2.0"
    own = [*DOCKET, "-l", str(docket.location), "pull", "app:1.0", "--layers-only"]
    subprocess.run(own, check=True, capture_output=True, env=environment())


def test_the_socket_is_for_the_agents_user_alone(agent: AgentProcess) -> None:
    """Whoever may write to it could fill the disk."""
    assert (agent.location / "agent.sock").stat().st_mode & 0o777 == 0o600


def test_a_killed_agents_socket_is_no_agent(docket: Commands, tmp_path: Path) -> None:
    """What it left in the folder neither answers nor is waited for."""
    with agent_process(docket.url, tmp_path / "host") as running:
        running.process.kill()
        running.process.wait()
    assert (docket.location / "agent.sock").exists()
    assert docket("images", "--local") == {"images": []}


def test_a_deep_location_is_no_obstacle(docket: Commands, tmp_path: Path) -> None:
    """Linux takes 107 bytes for the path of a socket."""
    deep = tmp_path / ("d" * 80) / ("e" * 80)
    deep.parent.mkdir()
    with agent_process(docket.url, deep):
        assert Commands(docket.url, deep)("images", "--local") == {"images": []}


def test_a_pull_through_the_agent_imports_neither_store_nor_swarm_nor_http() -> None:
    """What it spares is most of a command's start."""
    code = (
        "import sys, docket.cli, docket.agent.control.channel, docket.transfer.output;"
        "heavy = ('lmdb', 'libtorrent', 'docker', 'torf', 'urllib3', 'starlette');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([DOCKET[0], "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def run(docket: Commands, *arguments: str, engine: str = "") -> subprocess.CompletedProcess[str]:
    """A command, whatever its exit code."""
    argv = [*DOCKET, *docket.options, *arguments]
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, env=environment(engine), timeout=60
    )
