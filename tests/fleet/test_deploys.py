"""Deploys as a state machine: who is ordered when, and how a deploy ends."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from docket.errors import DeployUnknown, InvalidRequest
from docket.fleet.deploy import Deploy, DeployState, HostState
from docket.fleet.deploys import MAX_KEPT, Deploys, Effects
from docket.fleet.hosts import Hosts
from docket.wire import DeployRequest, HostInfo, HostReport

DIGEST = f"sha256:{'a' * 64}"


def host_id(number: int) -> str:
    """The id of the agent on host *number*."""
    return f"{number:032x}"


class Fleet:
    """Hosts and deploys with a clock that stands still, and the logs that would be on disk."""

    def __init__(self, count: int = 4) -> None:
        self.now = 1000.0
        self.hosts = Hosts(clock=lambda: self.now)
        self.deploys = Deploys(self.hosts, clock=lambda: self.now)
        self.logs: dict[str, list[dict[str, Any]]] = {}
        self.orders: list[tuple[str, str]] = []
        for number in range(count):
            self.connect(number)

    def take(self, effects: Effects) -> list[str]:
        """Do what *effects* ask; the hosts that were ordered to fetch."""
        for deploy_id, row in effects.rows:
            # what is read back has gone through JSON
            decoded = msgspec.json.decode(msgspec.json.encode(row))
            self.logs.setdefault(deploy_id, []).append(decoded)
        for deploy_id in effects.forgotten:
            self.logs.pop(deploy_id)
        self.orders += [(key, order.action) for key, order in effects.orders]
        return [key for key, order in effects.orders if order.action == "fetch"]

    def connect(self, number: int, **more: Any) -> list[str]:
        """The agent of host *number* connects."""
        info = HostInfo(id=host_id(number), name=f"host{number}", **more)
        self.hosts.connect(info, f"10.0.0.{number}")
        return self.take(self.deploys.host_connected(info.id))

    def leave(self, number: int) -> list[str]:
        """Its connection ends."""
        self.hosts.disconnect(host_id(number))
        return self.take(self.deploys.host_left(host_id(number)))

    def create(self, **options: Any) -> tuple[Deploy, list[str]]:
        """A deploy, and the hosts that were ordered at once."""
        request = DeployRequest(repository=options.pop("repository", "app"), tag="1.1", **options)
        deploy, effects = self.deploys.create(request, DIGEST)
        return deploy, self.take(effects)

    def report(self, deploy: Deploy, number: int, state: str, **more: Any) -> list[str]:
        """Host *number* reports; the hosts that are ordered thereupon."""
        report = HostReport(deploy=deploy.id, state=state, **more)
        return self.take(self.deploys.report(host_id(number), report))

    def restarted(self) -> Fleet:
        """The registry after a restart: no agent is connected, deploys come from their logs."""
        fleet = Fleet(0)
        fleet.now = self.now
        fleet.logs = self.logs
        for deploy_id, rows in self.logs.items():
            fleet.deploys.restore(deploy_id, iter(rows))
        return fleet


def numbers(*chosen: int) -> list[str]:
    """Ids of hosts."""
    return [host_id(number) for number in chosen]


def test_a_deploy_to_all_orders_every_host_and_ends_when_all_are_done() -> None:
    """Without limits all hosts are ordered at once; done means that each has it, verified."""
    fleet = Fleet(3)
    deploy, ordered = fleet.create()
    assert ordered == numbers(0, 1, 2)
    for number in (0, 1):
        fleet.report(deploy, number, "verified")
    assert deploy.is_running
    fleet.report(deploy, 2, "fetching", total=10, done=4)
    assert deploy.status().counts == {"done": 2, "fetching": 1}
    fleet.report(deploy, 2, "verified")
    assert deploy.state is DeployState.DONE
    assert deploy.ended == fleet.now


def test_with_load_a_verified_host_is_not_done_before_its_engine_has_the_image() -> None:
    """``--load``: done is what the engine has."""
    fleet = Fleet(1)
    deploy, _ = fleet.create(load=True)
    fleet.report(deploy, 0, "verified")
    assert deploy.is_running
    fleet.report(deploy, 0, "loading")
    fleet.report(deploy, 0, "done")
    assert deploy.state is DeployState.DONE


def test_at_most_as_many_hosts_as_asked_for_fetch_at_once() -> None:
    """``--at-once 2``: one more is ordered whenever one is done or has failed."""
    fleet = Fleet(5)
    deploy, ordered = fleet.create(at_once=2)
    assert ordered == numbers(0, 1)
    assert fleet.report(deploy, 0, "verified") == numbers(2)
    assert fleet.report(deploy, 1, "failed", reason="disk full") == numbers(3)
    assert fleet.report(deploy, 2, "fetching") == []
    assert fleet.leave(2) == numbers(4)


def test_others_wait_for_the_canary_hosts_and_the_pause() -> None:
    """``--canary 1 --pause 60``: the others are ordered 60 s after the canary host is done."""
    fleet = Fleet(3)
    deploy, ordered = fleet.create(canary=1, pause=60.0)
    assert ordered == numbers(0)
    assert fleet.report(deploy, 0, "verified") == []
    fleet.now += 59
    assert fleet.take(fleet.deploys.tick()) == []
    fleet.now += 1
    assert fleet.take(fleet.deploys.tick()) == numbers(1, 2)


def test_a_canary_that_fails_ends_the_deploy_before_others_are_touched() -> None:
    """No other host is ordered, and the deploy says why."""
    fleet = Fleet(3)
    deploy, _ = fleet.create(canary=1)
    assert fleet.report(deploy, 0, "failed", reason="no such layer") == []
    assert deploy.state is DeployState.FAILED
    assert "canary" in deploy.why


def test_connected_hosts_are_canaries_before_those_that_are_off() -> None:
    """A host that is off would hold up the others until the deadline."""
    fleet = Fleet(3)
    fleet.leave(0)
    _, ordered = fleet.create(canary=1)
    assert ordered == numbers(1)


def test_a_host_that_was_off_is_ordered_when_it_returns() -> None:
    """Until the deadline."""
    fleet = Fleet(2)
    fleet.leave(1)
    deploy, ordered = fleet.create(deadline=100.0)
    assert ordered == numbers(0)
    assert deploy.members[host_id(1)].state is HostState.OFFLINE
    fleet.now += 99
    assert fleet.connect(1) == numbers(1)


def test_a_deploy_whose_deadline_passes_names_the_hosts_that_are_not_done() -> None:
    """Its state is expired; what is under way is cancelled; who returns later is not ordered."""
    fleet = Fleet(2)
    fleet.leave(1)
    deploy, _ = fleet.create(deadline=100.0)
    fleet.report(deploy, 0, "fetching")
    fleet.now += 100
    fleet.take(fleet.deploys.tick())
    assert deploy.state is DeployState.EXPIRED
    assert deploy.why == "2 of 2 hosts were not done in time"
    assert fleet.orders[-1] == (host_id(0), "cancel")
    assert fleet.connect(1) == []
    assert [row.name for row in deploy.status(hosts=5).hosts] == ["host0", "host1"]


def test_an_agent_that_reconnects_is_ordered_again() -> None:
    """The order that was sent before its connection ended may not have arrived."""
    fleet = Fleet(1)
    deploy, _ = fleet.create()
    fleet.report(deploy, 0, "fetching")
    fleet.leave(0)
    assert deploy.members[host_id(0)].state is HostState.OFFLINE
    assert fleet.connect(0) == numbers(0)


def test_of_two_deploys_of_a_repository_the_later_wins() -> None:
    """The earlier one ends, says by whom, and its hosts stop; other repositories go on."""
    fleet = Fleet(2)
    second, _ = fleet.create(repository="db")
    earlier, _ = fleet.create()
    later, ordered = fleet.create()
    assert earlier.state is DeployState.SUPERSEDED
    assert later.id in earlier.why
    assert ordered == numbers(0, 1)
    assert second.is_running
    assert (host_id(0), "cancel") in fleet.orders
    fleet.report(earlier, 0, "verified")
    assert earlier.members[host_id(0)].state is not HostState.DONE


def test_a_deploy_goes_on_after_a_restart_of_the_registry() -> None:
    """Hosts that were done stay done; others are ordered again as they connect."""
    fleet = Fleet(3)
    deploy, _ = fleet.create(at_once=2)
    fleet.report(deploy, 0, "verified", total=5, done=5)
    after = fleet.restarted()
    again = after.deploys.get(deploy.id)
    assert again.is_running
    assert again.status().counts == {"done": 1, "waiting": 2}
    assert after.connect(1) == numbers(1)
    assert after.connect(2) == numbers(2)
    assert after.connect(0) == []
    for number in (1, 2):
        after.report(again, number, "verified")
    assert again.state is DeployState.DONE


def test_a_deploy_shows_when_each_host_was_done_also_after_a_restart() -> None:
    """The seconds count from the creation until the registry had the host's last report."""
    fleet = Fleet(2)
    deploy, _ = fleet.create()
    fleet.now += 2.5
    fleet.report(deploy, 0, "done")
    restored = fleet.restarted().deploys.get(deploy.id)
    for shown in (deploy, restored):
        rows = {row.name: row.seconds for row in shown.status(hosts=2).hosts}
        assert rows == {"host0": 2.5, "host1": 0.0}


def test_the_canary_pause_goes_on_after_a_restart() -> None:
    """It began when the canary host was done, not anew."""
    fleet = Fleet(2)
    deploy, _ = fleet.create(canary=1, pause=60.0)
    fleet.report(deploy, 0, "verified")
    fleet.now += 30
    after = fleet.restarted()
    assert after.connect(1) == []
    after.now += 30
    assert after.take(after.deploys.tick()) == numbers(1)
    assert after.deploys.get(deploy.id).members[host_id(1)].state is HostState.ORDERED


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_log_that_a_crash_has_cut_gives_what_came_before(cut: int) -> None:
    """Rows behind a bad one are ignored; without the first row there is no deploy."""
    fleet = Fleet(2)
    deploy, _ = fleet.create()
    fleet.report(deploy, 0, "verified")
    fleet.report(deploy, 1, "verified")
    rows = fleet.logs[deploy.id]
    assert len(rows) == 4
    hosts = Hosts()
    deploys = Deploys(hosts)
    deploys.restore(deploy.id, [*rows[:cut], {"event": "host", "host": "?"}, *rows[cut:]])
    again = deploys.get(deploy.id)
    assert again.is_running
    assert again.counts[HostState.DONE] == cut - 1
    deploys.restore("00000000", rows[1:])
    with pytest.raises(DeployUnknown):
        deploys.get("00000000")


def test_hosts_that_no_agent_ever_named_are_refused_by_name() -> None:
    """``--hosts FILE`` with a typing error must not deploy to a part of the file."""
    fleet = Fleet(2)
    with pytest.raises(InvalidRequest, match="hots1"):
        fleet.create(hosts=["host0", "hots1"])
    with pytest.raises(InvalidRequest, match="no host matches"):
        fleet.create(zone="nowhere")


def test_zone_and_labels_choose_hosts() -> None:
    """All labels must be there."""
    fleet = Fleet(0)
    fleet.connect(0, zone="berlin", labels={"role": "web", "tier": "1"})
    fleet.connect(1, zone="berlin", labels={"role": "db"})
    fleet.connect(2, zone="paris", labels={"role": "web"})
    assert fleet.create(zone="berlin")[1] == numbers(0, 1)
    assert fleet.create(labels={"role": "web"})[1] == numbers(0, 2)
    assert fleet.create(zone="berlin", labels={"role": "web", "tier": "1"})[1] == numbers(0)


def test_reports_about_other_hosts_deploys_change_nothing() -> None:
    """A host reports of itself alone, and only states that are its own to say."""
    fleet = Fleet(2)
    deploy, _ = fleet.create(hosts=["host0"])
    fleet.report(deploy, 1, "failed")
    fleet.report(deploy, 0, "superseded")
    fleet.report(deploy, 0, "waiting")
    assert deploy.status().counts == {"ordered": 1}


def test_old_deploys_are_forgotten_with_their_logs_but_running_ones_stay() -> None:
    """The bound holds for memory and for files."""
    fleet = Fleet(1)
    first, _ = fleet.create(repository="kept")
    for number in range(MAX_KEPT + 5):
        deploy, _ = fleet.create()
        fleet.report(deploy, 0, "verified")
        fleet.now += number
    assert len(fleet.logs) <= MAX_KEPT + 1
    assert fleet.deploys.get(first.id).is_running


def test_ten_thousand_hosts_cost_a_fixed_time_each() -> None:
    """A report of one host looks at no other host: 20,000 reports take a second or so."""
    import time

    fleet = Fleet(0)
    for number in range(10_000):
        fleet.hosts.connect(HostInfo(id=host_id(number), name=f"host{number}"), "10.0.0.1")
    deploy, ordered = fleet.create()
    assert len(ordered) == 10_000
    began = time.process_time()
    for number in range(10_000):
        fleet.report(deploy, number, "fetching", total=10, done=5)
        fleet.report(deploy, number, "verified", total=10, done=10)
    assert deploy.state is DeployState.DONE
    assert time.process_time() - began < 10
