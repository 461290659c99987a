"""Agents, hosts and deploys over HTTP, at a registry that runs."""

from __future__ import annotations

import json
import secrets
import uuid
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import running
from tests.api.http import Registry, Repository
from tests.store.samples import image
from tests.support.agents import JSON, StandIn, stand_in


def agent(registry: Registry, name: str, **more: Any) -> AbstractContextManager[StandIn]:
    """An agent of a host *name*, connected until the end of the block."""
    return stand_in(registry.url, name, **more)


def deploy(registry: Registry, repo: Repository, **options: Any) -> dict[str, Any]:
    """A deploy of the repository's tag ``latest``."""
    body = json.dumps({"repository": repo.name, "tag": "latest", **options}).encode()
    answer = registry.ask("POST", "/v2/_docket/deploys", body=body, headers=JSON)
    assert answer.status == 201, answer.body
    assert answer.headers["Location"] == f"/v2/_docket/deploys/{answer.json['id']}"
    created = answer.json
    assert isinstance(created, dict)
    return created


def shown(registry: Registry, deploy_id: str, **query: Any) -> dict[str, Any]:
    """The deploy as it stands."""
    answer = registry.ask("GET", f"/v2/_docket/deploys/{deploy_id}", **query)
    assert answer.status == 200, answer.body
    status = answer.json
    assert isinstance(status, dict)
    return status


def test_a_deploy_orders_a_connected_agent_and_follows_its_reports(
    registry: Registry, repo: Repository
) -> None:
    """The order names the digest that the tag had when the deploy was made."""
    digest = repo.push(image("one"))
    name = uuid.uuid4().hex
    with agent(registry, name) as host:
        created = deploy(registry, repo, hosts=[name])
        order = host.order()
        assert order["action"] == "fetch"
        assert (order["digest"], order["deploy"]) == (str(digest), created["id"])
        repo.push(image("two"))
        assert host.report(created["id"], "fetching", total=10, done=4, rate=2) == 204
        status = shown(registry, created["id"], hosts=5)
        assert (status["bytes_done"], status["rate"], status["digest"]) == (4, 2, str(digest))
        assert host.report(created["id"], "verified", total=10, done=10, from_hosts=10) == 204
        status = shown(registry, created["id"], after=status["revision"])
    assert (status["state"], status["counts"], status["from_hosts"]) == ("done", {"done": 1}, 10)


def test_hosts_are_listed_by_zone_and_label(registry: Registry) -> None:
    """Connected or not, with what their agents said; never with an agent's whole id."""
    zone = uuid.uuid4().hex
    with (
        agent(registry, "b", zone=zone, labels={"role": "web"}, engine="docker 28") as web,
        agent(registry, "a", zone=zone, held=["sha256:1", "sha256:2", "sha256:2"]),
    ):
        answer = registry.ask("GET", "/v2/_docket/hosts", zone=zone)
        rows = answer.json["hosts"]
        assert [row["name"] for row in rows] == ["a", "b"]
        assert rows[0]["held"] == 2
        assert rows[1]["engine"] == "docker 28"
        assert web.id.encode() not in answer.body
        answer = registry.ask("GET", "/v2/_docket/hosts", zone=zone, label="role=web")
        assert [row["name"] for row in answer.json["hosts"]] == ["b"]
    assert registry.ask("GET", "/v2/_docket/hosts", label="role").refused(400, "UNSUPPORTED")


def test_an_agent_that_leaves_is_not_connected_any_more(
    registry: Registry, repo: Repository
) -> None:
    """Its part of a deploy is offline until it returns; then it is ordered again."""
    repo.push(image("one"))
    name = uuid.uuid4().hex
    with agent(registry, name) as host:
        created = deploy(registry, repo, hosts=[name])
        host.order()
        before = shown(registry, created["id"])
    status = shown(registry, created["id"], after=before["revision"], hosts=1)
    assert status["hosts"][0]["state"] == "offline"
    with agent(registry, name, id=host.id) as again:
        assert again.order()["deploy"] == created["id"]


def test_a_newer_connection_of_the_same_agent_takes_over(registry: Registry) -> None:
    """The older stream ends, as it must for an agent whose network was cut and came back."""
    name = uuid.uuid4().hex
    with agent(registry, name) as first, agent(registry, name, id=first.id):
        with pytest.raises(StopIteration):
            first.order()
        row = registry.ask("GET", "/v2/_docket/hosts", last="", n=10_000)
        (mine,) = [row for row in row.json["hosts"] if row["name"] == name]
        assert mine["connected"]


def test_deploys_survive_a_restart_of_the_registry(tmp_path: Path) -> None:
    """What was done stays done; the rest is ordered when its agents connect again."""
    ids = {name: secrets.token_hex(16) for name in "ab"}
    with running(tmp_path / "store", pin_seconds=3600) as before:
        repo = before.repository("app")
        repo.push(image("one"))
        with (
            agent(before, "a", id=ids["a"]) as done,
            agent(before, "b", id=ids["b"]) as late,
        ):
            created = deploy(before, repo)
            assert done.order()["deploy"] == late.order()["deploy"] == created["id"]
            done.report(created["id"], "verified", total=5, done=5)
    with running(tmp_path / "store", pin_seconds=3600) as after:
        status = shown(after, created["id"])
        assert (status["state"], status["counts"]) == ("running", {"done": 1, "waiting": 1})
        with agent(after, "b", id=ids["b"]) as late:
            assert late.order()["deploy"] == created["id"]
            late.report(created["id"], "failed", reason="disk full")
        assert shown(after, created["id"], hosts=2)["hosts"][0]["reason"] == "disk full"
        listed = after.ask("GET", "/v2/_docket/deploys").json["deploys"]
        assert [(row["id"], row["state"]) for row in listed] == [(created["id"], "failed")]


def test_a_stopped_deploy_cancels_its_hosts(registry: Registry, repo: Repository) -> None:
    """DELETE; hosts that are not done are told to stop."""
    repo.push(image("one"))
    name = uuid.uuid4().hex
    with agent(registry, name) as host:
        created = deploy(registry, repo, hosts=[name])
        host.order()
        path = f"/v2/_docket/deploys/{created['id']}"
        assert registry.ask("DELETE", path).status == 202
        assert host.order() == {"action": "cancel", "deploy": created["id"]}
    assert shown(registry, created["id"])["state"] == "stopped"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"repository": "app"}',
        b'{"repository": "app", "tag": "no such tag"}',
        b'{"repository": "app", "tag": "latest", "canary": -1}',
        b'{"repository": "app", "tag": "latest", "deadline": 1e99}',
        b'{"repository": "app", "digest": "sha256:1"}',
        b'{"repository": "app", "tag": "latest", "colour": "red"}',
    ],
)
def test_a_deploy_that_makes_no_sense_is_refused(registry: Registry, body: bytes) -> None:
    """With a reason, and nothing is begun."""
    answer = registry.ask("POST", "/v2/_docket/deploys", body=body, headers=JSON)
    assert answer.status == 400, answer.body
    assert answer.json["errors"][0]["message"]


def test_unknown_deploys_images_and_agents_are_not_found(registry: Registry) -> None:
    """404 with what is unknown."""
    assert registry.ask("GET", "/v2/_docket/deploys/12345678").refused(404, "NAME_UNKNOWN")
    body = json.dumps({"repository": "none", "tag": "latest"}).encode()
    answer = registry.ask("POST", "/v2/_docket/deploys", body=body, headers=JSON)
    assert answer.status == 404
    path = f"/v2/_docket/agents/{secrets.token_hex(16)}/reports"
    answer = registry.ask("POST", path, body=b'{"reports": []}', headers=JSON)
    assert answer.refused(404, "NAME_UNKNOWN")
