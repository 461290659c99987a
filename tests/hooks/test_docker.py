"""What setup plans for Docker, from daemon.json and the folders of registries that are there."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from docket.errors import InvalidConfiguration
from docket.hooks.docker import DockerFacts, plan_docker
from docket.hooks.files import HostFiles
from docket.hooks.plan import AgentAddress, Paths, Plan, Registry
from tests.hooks.conftest import AGENT, PATHS, put, snapshot

Open = Callable[[], HostFiles]

CONTAINERD_STORE = DockerFacts("28.5.2+dfsg4", is_containerd_store=True)
GRAPH_DRIVER = DockerFacts("20.10.24+dfsg1", is_containerd_store=False)
CERTS = "/etc/docker/certs.d"
URL = "http://127.0.0.1:5000"
AGENT_ROWS = {"capabilities": ["pull", "resolve"], "dial_timeout": "1s"}


def planned(
    files: HostFiles,
    facts: DockerFacts = CONTAINERD_STORE,
    registry: Registry | None = None,
    agent: AgentAddress = AGENT,
) -> Plan:
    """The plan for a Docker of the system."""
    return plan_docker(files, PATHS, agent, facts, registry)


def hosts(plan: Plan) -> dict[str, dict[str, Any]]:
    """Each planned hosts.toml by its registry."""
    return {
        change.path.parent.name: tomllib.loads(change.content.decode())
        for change in plan.changes
        if change.path.name == "hosts.toml"
    }


def daemon_json(plan: Plan) -> dict[str, Any] | None:
    """The planned daemon.json."""
    contents = [change.content for change in plan.changes if change.path.name == "daemon.json"]
    return json.loads(contents[0]) if contents else None


def test_the_containerd_store_asks_the_agent_for_every_registry(open_files: Open) -> None:
    """One file for all registries, with 1 s to connect; the registry itself comes after it."""
    plan = planned(open_files())
    assert hosts(plan) == {"_default": {"host": {URL: AGENT_ROWS}}}
    assert daemon_json(plan) is None
    assert plan.next_steps == ()


@pytest.mark.parametrize("facts", [GRAPH_DRIVER, DockerFacts("27.5.1")])
def test_a_graph_driver_pulls_by_the_prefix_alone(open_files: Open, facts: DockerFacts) -> None:
    """Nothing is written that has no effect, and the note has the name to pull by."""
    plan = planned(open_files(), facts)
    assert plan.changes == ()
    assert any("docker pull 127.0.0.1:5000/NAME:TAG" in note for note in plan.notes)


def test_rootless_docker_has_a_note_on_its_network(root: Path, open_files: Open) -> None:
    """Its files are the user's, and its loopback may not be the host's."""
    home = Path("/home/ann")
    user = Paths.of_user(config=home / ".config", state=home / ".state", store=home / "store")
    plan = plan_docker(open_files(), user, AGENT, CONTAINERD_STORE)
    (change,) = plan.changes
    assert change.path == home / ".config/docker/certs.d/_default/hosts.toml"
    (note,) = plan.notes
    assert "network namespace" in note


def test_the_containerd_store_before_28_is_refused(open_files: Open) -> None:
    """It reads no hosts.toml, and pulls nothing over plain HTTP: the note says what to do."""
    plan = planned(open_files(), DockerFacts("26.1.5+dfsg1", is_containerd_store=True))
    assert plan.changes == ()
    (note,) = plan.notes
    assert "docket pull loads images" in note


@pytest.mark.parametrize("listed", [[], ["10.0.0.0/8"], ["registry.corp:5000", "10.0.0.0/8"]])
def test_loopback_is_listed_where_a_list_ends_its_trust(
    root: Path, open_files: Open, listed: list[str]
) -> None:
    """Since 29.10 insecure-registries, even empty, has to name loopback; other settings stay."""
    settings = {"log-driver": "örtlich", "insecure-registries": listed, "debug": True}
    put(root, "/etc/docker/daemon.json", json.dumps(settings, indent="\t", ensure_ascii=False))
    plan = planned(open_files(), GRAPH_DRIVER)
    wanted = {**settings, "insecure-registries": [*listed, "127.0.0.0/8"]}
    assert daemon_json(plan) == wanted
    assert list(daemon_json(plan) or {}) == list(settings)
    (change,) = plan.changes
    assert b'\n\t"log-driver": "\xc3\xb6rtlich"' in change.content
    assert plan.next_steps == ("systemctl reload docker",)


@pytest.mark.parametrize("entry", ["127.0.0.0/8", "127.0.0.1/32", "http://127.0.0.1:5000"])
def test_loopback_that_is_listed_needs_no_change(root: Path, open_files: Open, entry: str) -> None:
    """An entry that covers the agent's address is enough."""
    put(root, "/etc/docker/daemon.json", json.dumps({"insecure-registries": [entry]}))
    assert planned(open_files(), GRAPH_DRIVER).changes == ()


def test_an_agent_that_is_not_on_loopback_is_listed(open_files: Open) -> None:
    """A graph driver takes plain HTTP only from addresses that are listed."""
    agent = AgentAddress("10.1.2.3", 5000)
    plan = planned(open_files(), GRAPH_DRIVER, agent=agent)
    assert daemon_json(plan) == {"insecure-registries": ["10.1.2.3:5000"]}


def test_a_docker_that_is_down_gets_both(root: Path, open_files: Open) -> None:
    """When the image store isn't known, all that either needs is written, and a note says so."""
    put(root, "/etc/docker/daemon.json", '{"insecure-registries": []}')
    plan = planned(open_files(), DockerFacts())
    assert "_default" in hosts(plan)
    assert daemon_json(plan) == {"insecure-registries": ["127.0.0.0/8"]}
    assert any("run setup again" in note for note in plan.notes)


@pytest.mark.parametrize(
    "settings", [{"userns-remap": "default"}, {"features": {"containerd-snapshotter": False}}]
)
def test_daemon_json_tells_a_graph_driver_apart(
    root: Path, open_files: Open, settings: dict[str, object]
) -> None:
    """userns-remap and a switched-off containerd store mean a graph driver."""
    put(root, "/etc/docker/daemon.json", json.dumps(settings))
    assert planned(open_files(), DockerFacts()).changes == ()


def test_settings_that_docker_would_ignore_are_carried_over(root: Path, open_files: Open) -> None:
    """Docker ignores its lists of mirrors and insecure registries beside a second host."""
    settings = {
        "registry-mirrors": ["https://mirror.corp/", "http://10.0.0.9:5001"],
        "insecure-registries": ["registry.corp:5000", "http://other.corp", "localhost:5001"],
    }
    put(root, "/etc/docker/daemon.json", json.dumps(settings))
    plan = planned(open_files())
    hosts_files = hosts(plan)
    assert set(hosts_files) == {"_default", "docker.io", "registry.corp:5000", "other.corp"}
    assert list(hosts_files["docker.io"]["host"]) == [
        URL,
        "https://mirror.corp",
        "http://10.0.0.9:5001",
    ]
    insecure = {"server": "http://registry.corp:5000", "skip_verify": True}
    assert hosts_files["registry.corp:5000"] == {**insecure, "host": {URL: AGENT_ROWS}}
    assert daemon_json(plan) is None


def test_insecure_networks_are_noted(root: Path, open_files: Open) -> None:
    """A network has no folder: the operator is told to name its registries."""
    put(root, "/etc/docker/daemon.json", '{"insecure-registries": ["10.0.0.0/8", "127.0.0.0/8"]}')
    (note,) = planned(open_files()).notes
    assert "10.0.0.0/8" in note
    assert "127.0.0.0/8" not in note


def test_certificates_of_a_registry_still_count(root: Path, open_files: Open) -> None:
    """A folder hides _default, and hosts.toml hides the folder's certificates: it names them."""
    for name in ("ca.crt", "me.cert", "me.key", "whole.cert"):
        put(root, f"{CERTS}/registry.corp:8443/{name}", "PEM")
    hosts_files = hosts(planned(open_files()))["registry.corp:8443"]
    keys = {"ca": ["ca.crt"], "client": [["me.cert", "me.key"], "whole.cert"]}
    assert hosts_files == {**keys, "host": {URL: AGENT_ROWS}}


def test_hosts_that_are_there_come_after_the_agent(root: Path, open_files: Open) -> None:
    """Each registry's own hosts.toml is merged, comments and all."""
    text = '# ours\nserver = "https://r"\n[host."https://m"]\n  ca = "x"\n'
    put(root, f"{CERTS}/registry.corp_5000_/hosts.toml", text)
    put(root, f"{CERTS}/_default/hosts.toml", text)
    put(root, f"{CERTS}/empty/README", "")
    plan = planned(open_files())
    hosts_files = hosts(plan)
    assert set(hosts_files) == {"registry.corp_5000_", "_default", "empty"}
    assert list(hosts_files["_default"]["host"]) == [URL, "https://m"]
    assert all(
        b"# ours" in change.content for change in plan.changes if change.path.parent.name != "empty"
    )


def test_a_single_host_keeps_what_daemon_json_gave_it(root: Path, open_files: Open) -> None:
    """hosts.toml without hosts had daemon.json's settings; with the agent in it, it needs them."""
    put(root, "/etc/docker/daemon.json", '{"insecure-registries": ["r.corp:5000"]}')
    put(root, f"{CERTS}/r.corp:5000/hosts.toml", 'ca = "x.crt"\n')
    hosts_files = hosts(planned(open_files()))["r.corp:5000"]
    assert (hosts_files["ca"], hosts_files["server"], hosts_files["skip_verify"]) == (
        "x.crt",
        "http://r.corp:5000",
        True,
    )


def test_docket_s_registry_is_reached_through_the_agent(root: Path, open_files: Open) -> None:
    """Images may be named by docket's registry; one on loopback needs no folder."""
    plan = planned(open_files(), registry=Registry("registry:8000", is_plain_http=True))
    assert hosts(plan)["registry:8000"]["server"] == "http://registry:8000"
    local = planned(open_files(), registry=Registry("127.0.0.1:8000", is_plain_http=True))
    assert set(hosts(local)) == {"_default"}


def test_setup_sees_through_its_own_files(root: Path, open_files: Open) -> None:
    """Applied twice, and with other settings, the plan converges; undo restores every byte."""
    put(root, "/etc/docker/daemon.json", '{"registry-mirrors": ["https://m"]}')
    put(root, f"{CERTS}/a.corp/ca.crt", "PEM")
    put(root, f"{CERTS}/b.corp/hosts.toml", 'server = "https://b"')
    before = snapshot(root)
    files = open_files()
    files.apply(planned(files))
    once = snapshot(root)
    assert planned(open_files()).changes
    again = open_files()
    again.apply(planned(again))
    assert snapshot(root) == once
    moved = open_files()
    moved.apply(planned(moved, agent=AgentAddress("127.0.0.1", 5005)))
    assert {"http://127.0.0.1:5005"} == {
        next(iter(tomllib.loads(path.read_text())["host"]))
        for path in (root / "etc/docker/certs.d").rglob("hosts.toml")
    }
    open_files().undo("docker")
    assert snapshot(root) == before


@pytest.mark.parametrize("text", ["{", "[]", '{"insecure-registries": "x"}', "[" * 100_000])
@pytest.mark.parametrize("facts", [CONTAINERD_STORE, GRAPH_DRIVER])
def test_a_daemon_json_that_docket_cannot_read_is_refused(
    root: Path, open_files: Open, text: str, facts: DockerFacts
) -> None:
    """The error names the file; nothing is planned from a guess."""
    put(root, "/etc/docker/daemon.json", text)
    with pytest.raises(InvalidConfiguration, match=r"daemon\.json"):
        planned(open_files(), facts)


@pytest.mark.parametrize("text", ["[", "host = 3\n", 'host = {"https://m" = {}}\n'])
def test_a_hosts_toml_that_docket_cannot_edit_is_refused(
    root: Path, open_files: Open, text: str
) -> None:
    """The error names the file."""
    put(root, f"{CERTS}/r.corp/hosts.toml", text)
    with pytest.raises(InvalidConfiguration, match=r"r\.corp/hosts\.toml"):
        planned(open_files())
