"""``docket deploy``, ``deploys`` and ``hosts`` as people and scripts use them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.agents import StandIn, stand_in
from tests.support.commands import DOCKET, CommandFailed, Commands, environment, registry
from tests.support.images import tiny_image

IMAGE = "app:1.0"


@pytest.fixture
def docket(tmp_path: Path) -> Iterator[Commands]:
    """Commands against a registry that has one image."""
    archive = tmp_path / "image.tar"
    archive.write_bytes(tiny_image("app").docker_save())
    with registry(tmp_path / "registry") as url:
        commands = Commands(url, tmp_path / "host")
        commands("push", IMAGE, "--archive", archive)
        yield commands


def run(docket: Commands, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """A command as a person runs it; whatever its exit code."""
    return subprocess.run(
        [*DOCKET, *docket.options, *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        env=environment(),
        check=False,
        timeout=120,
    )


def obey(host: StandIn, state: str = "verified", **more: Any) -> None:
    """Report *state* for the next order."""
    order = host.order()
    host.report(order["deploy"], state, total=100, done=100, **more)


def test_a_deploy_that_reaches_every_host_ends_with_0(docket: Commands) -> None:
    """It says how many hosts have the image, and where the bytes came from."""
    with (
        stand_in(docket.url, "a") as agent,
        stand_in(docket.url, "b") as two,
        ThreadPoolExecutor(2) as pool,
    ):
        hosts = [pool.submit(obey, host, from_hosts=60, held=40) for host in (agent, two)]
        done = run(docket, "deploy", IMAGE, "--all")
        for host in hosts:
            host.result()
    assert done.returncode == 0, done.stderr
    assert "2 of 2 hosts have it, verified" in done.stdout
    assert "120 B from hosts, 80 B held before" in done.stdout
    assert "2 done" in done.stderr


def test_hosts_that_are_not_done_are_listed_with_their_reasons(docket: Commands) -> None:
    """Exit code 9; the others are not listed."""
    with (
        stand_in(docket.url, "a") as agent,
        stand_in(docket.url, "b") as two,
        ThreadPoolExecutor(2) as pool,
    ):
        pool.submit(obey, agent)
        pool.submit(obey, two, "failed", reason="no space left on /var")
        done = run(docket, "deploy", IMAGE, "--all")
    assert done.returncode == 9
    assert "1 of 2 hosts have it" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if "no space left" in line]
    assert [row[:2] for row in rows] == [["b", "failed"]]


def test_json_has_a_line_a_change_and_the_end_last(docket: Commands) -> None:
    """For machines: each line is a whole status."""
    with stand_in(docket.url, "a") as host, ThreadPoolExecutor(1) as pool:
        pool.submit(obey, host)
        done = run(docket, "--json", "deploy", IMAGE, "--all")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["state"] == "done"
    assert lines[-1]["hosts"][0]["name"] == "a"
    assert all(line["id"] == lines[0]["id"] for line in lines)


def test_a_detached_deploy_is_listed_and_attached_to(docket: Commands) -> None:
    """``--detach`` prints the ID; ``deploys`` has it; ``--attach`` follows it to its end."""
    with stand_in(docket.url, "a") as host:
        deploy_id = run(docket, "deploy", IMAGE, "--all", "--detach").stdout.strip()
        listed = docket("deploys")["deploys"]
        assert [(row["id"], row["state"]) for row in listed] == [(deploy_id, "running")]
        obey(host)
        assert run(docket, "deploy", "--attach", deploy_id).returncode == 0
    assert deploy_id in run(docket, "deploys").stdout


def test_a_file_names_the_hosts(docket: Commands, tmp_path: Path) -> None:
    """One name a line, with comments; a name that no agent has is refused before anything."""
    names = tmp_path / "hosts"
    names.write_text("# web\na  # first\n\n")
    with stand_in(docket.url, "a") as host, stand_in(docket.url, "b"):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(obey, host)
            done = run(docket, "deploy", IMAGE, "--hosts", str(names))
        assert "1 of 1 hosts" in done.stdout
        refused = run(docket, "deploy", IMAGE, "--hosts", "-", stdin="a\ntypo\n")
        assert refused.returncode == 5
        assert "typo" in refused.stderr
        assert run(docket, "deploy", IMAGE, "--hosts", "-", stdin="\n").returncode == 4


@pytest.mark.parametrize(
    "arguments",
    [
        ["deploy"],
        ["deploy", IMAGE],
        ["deploy", IMAGE, "--all", "--attach", "12345678"],
        ["deploy", IMAGE, "--label", "role"],
        ["deploy", IMAGE, "--all", "--deadline", "soon"],
    ],
)
def test_a_deploy_without_a_clear_target_is_wrong_usage(
    docket: Commands, arguments: list[str]
) -> None:
    """Nobody deploys to all hosts by leaving an option out."""
    done = run(docket, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_without_hosts_images_or_deploys_each_command_says_what_to_do(docket: Commands) -> None:
    """One line."""
    assert "docket agent" in run(docket, "hosts").stdout
    assert "docket deploy" in run(docket, "deploys").stdout
    refused = run(docket, "deploy", IMAGE, "--all")
    assert (refused.returncode, refused.stderr.count("\n")) == (5, 1)
    with stand_in(docket.url, "a"), pytest.raises(CommandFailed) as failed:
        docket("deploy", "none:1.0", "--all")
    assert failed.value.code in (3, 5)


def test_hosts_shows_what_agents_say(docket: Commands) -> None:
    """Zone and labels choose rows."""
    with (
        stand_in(docket.url, "web1", zone="berlin", labels={"role": "web"}, disk_free=5_000_000),
        stand_in(docket.url, "db1", zone="paris"),
    ):
        shown = run(docket, "hosts").stdout
        assert "role=web" in shown
        assert "5.0 MB" in shown
        assert shown.count("connected") == 2
        names = [row["name"] for row in docket("hosts", "--zone", "paris")["hosts"]]
        assert names == ["db1"]
    assert "ago" in run(docket, "hosts").stdout


def test_stopping_a_deploy_leaves_it_stopped(docket: Commands) -> None:
    """``--attach`` then ends with 9."""
    with stand_in(docket.url, "a"):
        deploy_id = run(docket, "deploy", IMAGE, "--all", "--detach").stdout.strip()
        assert run(docket, "deploy", "--stop", deploy_id).returncode == 0
        assert run(docket, "deploy", "--attach", deploy_id).returncode == 9
