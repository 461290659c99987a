"""docket agent setup as an operator runs it, on a host's files below a folder."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from docket.cli import cli
from tests.hooks.conftest import put, snapshot

TARGETS = ("docker", "containerd", "podman", "systemd")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The host's root."""
    return tmp_path


def run(root: Path, *arguments: str, code: int = 0, env: dict[str, str] | None = None) -> str:
    """A command's output; it must end with *code*."""
    done = CliRunner().invoke(cli, [*arguments, "--root", str(root)], env=env)
    assert done.exit_code == code, done.output
    return done.output


def run_json(root: Path, *arguments: str) -> dict[str, Any]:
    """What a command prints as JSON."""
    body: dict[str, Any] = json.loads(run(root, *arguments, "--json"))
    return body


@pytest.mark.parametrize("target", TARGETS)
def test_setup_says_what_it_wrote_and_how_to_undo_it(root: Path, target: str) -> None:
    """Each file has a line with its reason; the last line has the command that undoes it."""
    put(root, "/etc/docker/daemon.json", '{"insecure-registries": []}')
    before = snapshot(root)
    preview = run_json(root, "agent", "setup", target, "--print")
    assert snapshot(root) == before
    assert preview["written"] is False
    output = run(root, "agent", "setup", target)
    for file in preview["files"]:
        assert f" {file['path']}: {file['reason']}\n" in output
        assert (root / file["path"].removeprefix("/")).read_text() == file["content"]
    assert output.endswith(f"undo: docket agent setup {target} --undo\n")
    undone = run(root, "agent", "setup", target, "--undo")
    assert undone.count("as before setup") == len(preview["files"])
    assert snapshot(root) == before
    assert "setup has written no file" in run(root, "agent", "setup", target, "--undo")


def test_setup_uses_the_address_and_the_registry(root: Path) -> None:
    """--listen is the agent's address; -h adds docket's own registry."""
    run(root, "-h", "registry", "agent", "setup", "docker", "--listen", "[::1]:5005")
    path = root / "etc/docker/certs.d/registry:8000/hosts.toml"
    values = tomllib.loads(path.read_text())
    assert (values["server"], list(values["host"])) == (
        "http://registry:8000",
        ["http://[::1]:5005"],
    )


def test_podman_takes_the_registries_that_are_named(root: Path) -> None:
    """--registry may be repeated, and replaces the list of public registries."""
    run(root, "agent", "setup", "podman", "--registry", "a.corp", "--registry", "b.corp")
    path = root / "etc/containers/registries.conf.d/zz-docket.conf"
    rows = tomllib.loads(path.read_text())["registry"]
    assert [row["prefix"] for row in rows] == ["a.corp", "b.corp"]


def test_a_user_s_engines_have_their_files_at_home(root: Path) -> None:
    """--user writes below XDG_CONFIG_HOME, as rootless engines read it."""
    env = {"HOME": "/home/ann", "XDG_CONFIG_HOME": "", "XDG_STATE_HOME": ""}
    for target in TARGETS:
        run(root, "agent", "setup", target, "--user", env=env)
    written = {path for path in root.rglob("*") if path.is_file()}
    assert {path.relative_to(root / "home/ann").as_posix() for path in written} == {
        ".config/docker/certs.d/_default/hosts.toml",
        ".config/containerd/certs.d/_default/hosts.toml",
        ".config/containerd/config.toml",
        ".config/containers/registries.conf.d/zz-docket.conf",
        ".config/systemd/user/docket-agent.service",
        ".config/systemd/user/docket-agent.socket",
        ".local/state/docket/setup.json",
    }


def test_undo_of_an_edited_file_ends_with_an_error_code(root: Path) -> None:
    """What undo can't restore is named, and the command ends with 1."""
    put(root, "/etc/docker/daemon.json", '{"insecure-registries": []}')
    run(root, "agent", "setup", "docker")
    put(root, "/etc/docker/daemon.json", '{"insecure-registries": ["x"]}')
    output = run(root, "agent", "setup", "docker", "--undo", code=1)
    assert "kept /etc/docker/daemon.json: it was edited since setup" in output


@pytest.mark.parametrize(
    "listen", ["", "5000", ":5000", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "::1:5000"]
)
def test_an_address_that_is_none_is_wrong_usage(root: Path, listen: str) -> None:
    """Exit code 2, and nothing is written."""
    run(root, "agent", "setup", "docker", "--listen", listen, code=2)
    assert list(root.iterdir()) == []


def test_all_interfaces_mean_loopback_for_engines(root: Path) -> None:
    """An agent that listens on every address is reached on loopback."""
    body = run_json(root, "agent", "setup", "docker", "--listen", "0.0.0.0:5000", "--print")
    assert "http://127.0.0.1:5000" in body["files"][0]["content"]


def test_an_engine_s_file_that_is_broken_is_named(root: Path) -> None:
    """One line with the file's path; nothing is written."""
    put(root, "/etc/docker/daemon.json", "{")
    before = snapshot(root)
    done = CliRunner().invoke(cli, ["agent", "setup", "docker", "--root", str(root)])
    assert "/etc/docker/daemon.json can't be changed: it is not valid JSON" in str(done.exception)
    assert snapshot(root) == before
