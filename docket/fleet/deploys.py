"""Deploys: an image to chosen hosts, in order, until each has it or the deadline has passed.

The state machine alone: each call returns the orders that must go to agents and the records that
must be durable. It touches no socket and no file.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from docket.errors import DeployUnknown, InvalidRequest
from docket.fleet.deploy import FINAL, REPORTED, UNDER_WAY, Deploy, DeployState, HostState, Member
from docket.fleet.deploy_log import Row, ended_row, host_row, replayed, rows_of
from docket.fleet.hosts import Hosts, Selector
from docket.wire import DeployRequest, HostReport, Order

MAX_KEPT = 100
"""Deploys that are remembered; ended ones are forgotten first, oldest first."""

MAX_RUNNING = 50
"""Deploys that may run at the same time."""

REPORTS_PER_SECOND = 500
"""Progress reports a second that all hosts of a deploy send together."""

JITTER_PER_HOST = 0.0005
"""Seconds over which the starts of hosts are spread, for each host of the deploy."""

MAX_JITTER = 5.0
MIN_REPORT_SECONDS = 1.0


@dataclass(slots=True)
class Effects:
    """What a call asks of its caller: *orders* by host id, and *rows* for the logs of deploys."""

    orders: list[tuple[str, Order]] = field(default_factory=list)
    rows: list[tuple[str, Row]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)


class Deploys:
    """All deploys of a registry. Not thread-safe: it belongs to the event loop."""

    def __init__(self, hosts: Hosts, *, clock: Callable[[], float] = time.time) -> None:
        self._hosts = hosts
        self._clock = clock
        self._deploys: OrderedDict[str, Deploy] = OrderedDict()

    def create(self, request: DeployRequest, digest: str) -> tuple[Deploy, Effects]:
        """Begin to deploy the image *digest*; raises `InvalidRequest` when no host is chosen.

        A deploy of the same repository that still runs is superseded: the later wins.
        """
        members = self._chosen(request)
        running = list(self._running())
        earlier = [one for one in running if one.request.repository == request.repository]
        if len(running) - len(earlier) >= MAX_RUNNING:
            raise InvalidRequest(f"{MAX_RUNNING} deploys are running already; wait, or stop one")
        deploy = Deploy(secrets.token_hex(4), request, digest, self._clock(), members)
        effects = Effects()
        for older in earlier:
            self._end(older, DeployState.SUPERSEDED, f"by deploy {deploy.id}", effects)
        self._deploys[deploy.id] = deploy
        effects.rows += [(deploy.id, row) for row in rows_of(deploy)]
        self._forget_old(effects)
        self._advance(deploy, effects)
        return deploy, effects

    def stop(self, deploy_id: str) -> Effects:
        """End a deploy; hosts that are fetching stop. Stopping one that has ended is a no-op."""
        deploy = self.get(deploy_id)
        effects = Effects()
        if deploy.is_running:
            self._end(deploy, DeployState.STOPPED, "on request", effects)
        return effects

    def get(self, deploy_id: str) -> Deploy:
        """The deploy with this id. Raises `DeployUnknown`."""
        try:
            return self._deploys[deploy_id]
        except KeyError as error:
            raise DeployUnknown(deploy_id) from error

    def all(self) -> list[Deploy]:
        """All that are remembered, the newest first."""
        return sorted(self._deploys.values(), key=lambda deploy: -deploy.created)

    def host_connected(self, host_id: str) -> Effects:
        """An agent has connected: order what its host should have by now."""
        effects = Effects()
        for deploy in self._running():
            member = deploy.members.get(host_id)
            if member is None or member.state in FINAL:
                continue
            if member.state is not HostState.WAITING:
                # an order that was sent before the connection ended may not have arrived
                deploy.move(member, HostState.WAITING)
                deploy.queue.appendleft(member)
            self._advance(deploy, effects)
        return effects

    def host_left(self, host_id: str) -> Effects:
        """An agent's connection has ended: its part of running deploys waits for it."""
        effects = Effects()
        for deploy in self._running():
            member = deploy.members.get(host_id)
            if member and member.state in UNDER_WAY:
                deploy.move(member, HostState.OFFLINE, "its agent's connection ended")
                self._advance(deploy, effects)
        return effects

    def report(self, host_id: str, report: HostReport) -> Effects:
        """Take a host's progress; one about a deploy that isn't the host's changes nothing."""
        effects = Effects()
        deploy = self._deploys.get(report.deploy)
        member = deploy.members.get(host_id) if deploy else None
        if deploy is None or member is None or report.state not in REPORTED:
            return effects
        if not deploy.is_running or member.state not in UNDER_WAY:
            return effects
        state = HostState(report.state)
        if state is HostState.VERIFIED and not deploy.request.load:
            state = HostState.DONE
        member.report = report
        deploy.revision += 1
        deploy.move(member, state, report.reason)
        if state in FINAL:
            member.ended = self._clock()
            effects.rows.append((deploy.id, host_row(member)))
            self._advance(deploy, effects)
        return effects

    def tick(self) -> Effects:
        """Deadlines, and canary pauses that have passed; call it about once a second."""
        effects = Effects()
        for deploy in self._running():
            if self._clock() >= deploy.deadline:
                late = len(deploy.members) - sum(deploy.counts[state] for state in FINAL)
                why = f"{late} of {len(deploy.members)} hosts were not done in time"
                self._end(deploy, DeployState.EXPIRED, why, effects)
            elif deploy.later:
                self._advance(deploy, effects)
        return effects

    def restore(self, deploy_id: str, rows: Iterable[Row]) -> None:
        """Bring a deploy back from the *rows* of its log; a log without its head is ignored."""
        if deploy := replayed(deploy_id, rows):
            self._deploys[deploy_id] = deploy

    def _running(self) -> Iterator[Deploy]:
        return (deploy for deploy in list(self._deploys.values()) if deploy.is_running)

    def _chosen(self, request: DeployRequest) -> dict[str, Member]:
        selector = Selector(request.zone, request.labels, frozenset(request.hosts))
        chosen = {
            host_id: Member(host_id, host.info.name, host.info.zone)
            for host_id, host in self._hosts.select(selector)
        }
        names = {member.name for member in chosen.values()}
        if unknown := sorted(selector.names - names):
            listed = ", ".join(unknown[:5]) + (" …" if len(unknown) > 5 else "")
            raise InvalidRequest(f"no agent has connected from these hosts: {listed}")
        if not chosen:
            raise InvalidRequest("no host matches; docket hosts lists those that are known")
        # connected hosts first: as a canary, a host that is off would hold up all others
        order = sorted(chosen, key=lambda key: (not self._is_connected(key), chosen[key].name))
        return {host_id: chosen[host_id] for host_id in order}

    def _is_connected(self, host_id: str) -> bool:
        host = self._hosts.get(host_id)
        return host is not None and host.is_connected

    def _advance(self, deploy: Deploy, effects: Effects) -> None:
        """Order the hosts whose turn it is, and end the deploy when none is left."""
        if deploy.later:
            self._advance_canary(deploy, effects)
        if not deploy.is_running:
            return
        self._order_queued(deploy, effects)
        total, failed = len(deploy.members), deploy.counts[HostState.FAILED]
        if deploy.counts[HostState.DONE] + failed == total:
            why = f"{failed} of {total} hosts failed" if failed else ""
            self._end(deploy, DeployState.FAILED if failed else DeployState.DONE, why, effects)

    def _advance_canary(self, deploy: Deploy, effects: Effects) -> None:
        """Let the others go when the canary hosts are done and the pause has passed."""
        states = {member.state for member in deploy.canaries}
        if HostState.FAILED in states:
            why = "a canary host failed; the other hosts were left alone"
            self._end(deploy, DeployState.FAILED, why, effects)
        elif states <= {HostState.DONE}:
            if not deploy.canary_done:
                deploy.canary_done = self._clock()
                effects.rows.append((deploy.id, {"event": "canary", "time": deploy.canary_done}))
            if self._clock() >= deploy.canary_done + deploy.request.pause:
                deploy.queue.extend(deploy.later)
                deploy.later = []

    def _order_queued(self, deploy: Deploy, effects: Effects) -> None:
        room = (deploy.request.at_once or len(deploy.members)) - deploy.under_way
        order = _fetch_order(deploy)
        while room > 0 and deploy.queue:
            member = deploy.queue.popleft()
            if self._is_connected(member.id):
                effects.orders.append((member.id, order))
                deploy.move(member, HostState.ORDERED)
                room -= 1
            else:
                deploy.move(member, HostState.OFFLINE, "its agent is not connected")

    def _end(self, deploy: Deploy, state: DeployState, why: str, effects: Effects) -> None:
        deploy.state, deploy.why, deploy.ended = state, why, self._clock()
        deploy.revision += 1
        effects.rows.append((deploy.id, ended_row(deploy)))
        for member in deploy.members.values():
            if member.state in UNDER_WAY and self._is_connected(member.id):
                effects.orders.append((member.id, Order(action="cancel", deploy=deploy.id)))

    def _forget_old(self, effects: Effects) -> None:
        ended = sorted(
            (deploy for deploy in self._deploys.values() if not deploy.is_running),
            key=lambda deploy: deploy.ended,
        )
        for deploy in ended[: max(len(self._deploys) - MAX_KEPT, 0)]:
            del self._deploys[deploy.id]
            effects.forgotten.append(deploy.id)


def _fetch_order(deploy: Deploy) -> Order:
    total = len(deploy.members)
    return Order(
        action="fetch",
        deploy=deploy.id,
        repository=deploy.request.repository,
        tag=deploy.request.tag,
        digest=deploy.digest,
        load=deploy.request.load,
        jitter=min(total * JITTER_PER_HOST, MAX_JITTER),
        report_seconds=max(MIN_REPORT_SECONDS, total / REPORTS_PER_SECOND),
        hosts=min(deploy.request.at_once or total, total),
        max_download=deploy.request.max_download,
    )
