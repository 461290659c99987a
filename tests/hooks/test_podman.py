"""What setup plans for podman and CRI-O: a drop-in with a block for each registry."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from docket.errors import InvalidConfiguration
from docket.hooks.files import HostFiles
from docket.hooks.plan import Paths, Plan, Registry
from docket.hooks.podman import plan_podman
from tests.hooks.conftest import AGENT, PATHS, put, snapshot

Open = Callable[[], HostFiles]

CONF = "/etc/containers/registries.conf"


def blocks(plan: Plan) -> dict[str, dict[str, Any]]:
    """The planned blocks by prefix."""
    (change,) = plan.changes
    return {row["prefix"]: row for row in tomllib.loads(change.content.decode())["registry"]}


def mirrors(block: dict[str, Any]) -> list[str]:
    """The locations of a block's mirrors."""
    return [mirror["location"] for mirror in block["mirror"]]


def test_each_registry_has_the_agent_as_its_mirror(open_files: Open) -> None:
    """There is no ``?ns=``: the mirror's location says which registry an image is of."""
    plan = plan_podman(open_files(), PATHS, AGENT, ["docker.io", "r.corp:5000"])
    assert str(plan.changes[0].path) == "/etc/containers/registries.conf.d/zz-docket.conf"
    registries = blocks(plan)
    assert registries["docker.io"] == {
        "prefix": "docker.io",
        "location": "docker.io",
        "mirror": [{"location": "127.0.0.1:5000/docker.io", "insecure": True}],
    }
    # a repository's name has no colon
    assert mirrors(registries["r.corp:5000"]) == ["127.0.0.1:5000/r.corp_5000"]


def test_docket_s_registry_keeps_its_names(root: Path, open_files: Open) -> None:
    """Images of docket's own registry have no prefix at the agent."""
    put(root, CONF, '[[registry]]\nlocation = "registry:8000/team"\n')
    own = Registry("registry:8000", is_plain_http=True)
    registries = blocks(plan_podman(open_files(), PATHS, AGENT, ["registry:8000"], own))
    assert registries["registry:8000"]["insecure"] is True
    assert mirrors(registries["registry:8000"]) == ["127.0.0.1:5000"]
    assert mirrors(registries["registry:8000/team"]) == ["127.0.0.1:5000/team"]


def test_blocks_that_are_there_keep_their_settings(root: Path, open_files: Open) -> None:
    """A later block replaces an earlier one of its prefix: it repeats it with the agent first."""
    put(
        root,
        CONF,
        'unqualified-search-registries = ["docker.io"]\n[[registry]]\nprefix = "docker.io"\n'
        'location = "hub.corp"\ninsecure = true\nmirror-by-digest-only = true\n'
        '[[registry.mirror]]\nlocation = "m.corp/hub"\n',
    )
    drop_in = '[[registry]]\nprefix = "docker.io/team"\nlocation = "team.corp"\n'
    put(root, "/etc/containers/registries.conf.d/50-team.conf", drop_in)
    registries = blocks(plan_podman(open_files(), PATHS, AGENT, ["docker.io"]))
    hub = registries["docker.io"]
    assert (hub["location"], hub["insecure"], hub["mirror-by-digest-only"]) == (
        "hub.corp",
        True,
        True,
    )
    assert mirrors(hub) == ["127.0.0.1:5000/docker.io", "m.corp/hub"]
    # the longest prefix counts: without its own mirror it would never ask the agent
    assert mirrors(registries["docker.io/team"]) == ["127.0.0.1:5000/docker.io/team"]


def test_wildcards_and_blocked_prefixes_are_left_out(root: Path, open_files: Open) -> None:
    """A wildcard's mirror can't tell registries apart; a blocked one must stay blocked."""
    wild = '[[registry]]\nprefix = "*.corp"\n[[registry]]\nlocation = "bad.io"\nblocked = true\n'
    put(root, CONF, wild)
    plan = plan_podman(open_files(), PATHS, AGENT, ["docker.io", "bad.io"])
    assert set(blocks(plan)) == {"docker.io"}
    assert any("*.corp, bad.io" in note for note in plan.notes)


def test_a_user_s_registries_conf_hides_the_system_s(root: Path, open_files: Open) -> None:
    """Rootless podman reads its own main file instead, and the drop-ins of both."""
    home = Path("/home/ann")
    paths = Paths.of_user(config=home / ".config", state=home / ".state", store=home / "store")
    put(root, CONF, '[[registry]]\nlocation = "system.corp"\n')
    put(root, "/etc/containers/registries.conf.d/a.conf", '[[registry]]\nlocation = "a.corp"\n')
    put(
        root,
        "/home/ann/.config/containers/registries.conf",
        '[[registry]]\nlocation = "ann.corp"\n',
    )
    plan = plan_podman(open_files(), paths, AGENT, ["docker.io"])
    assert set(blocks(plan)) == {"a.corp", "ann.corp", "docker.io"}
    assert plan.changes[0].path.is_relative_to(home / ".config/containers/registries.conf.d")


@pytest.mark.parametrize(
    "text",
    [
        '[registries.search]\nregistries = ["docker.io"]\n',
        "[[registry]]\ninsecure = true\n",
        "[[registry]\n",
        "registry = 3\n",
        '[[registry]]\nlocation = "x"\nmirror = 3\n',
        "[[registry]]\nlocation = 'x'\ndate = 1979-05-27\n",
    ],
)
def test_a_file_that_docket_cannot_read_is_refused(root: Path, open_files: Open, text: str) -> None:
    """The error names the file; nothing is planned from a guess."""
    put(root, CONF, text)
    with pytest.raises(InvalidConfiguration, match=r"registries\.conf"):
        plan_podman(open_files(), PATHS, AGENT)


def test_undo_restores_every_byte(root: Path, open_files: Open) -> None:
    """Setup adds one file and changes none; applied again, it doesn't see its own blocks."""
    put(root, CONF, '[[registry]]\nlocation = "docker.io"\n')
    before = snapshot(root)
    for names in (["docker.io", "ghcr.io"], ["quay.io"]):
        files = open_files()
        files.apply(plan_podman(files, PATHS, AGENT, names))
    assert set(blocks(plan_podman(open_files(), PATHS, AGENT, ["x.io"]))) == {"docker.io", "x.io"}
    open_files().undo("podman")
    assert snapshot(root) == before
