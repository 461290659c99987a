"""One deploy: its hosts, how each stands, and how it is shown."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import StrEnum

from docket.wire import DeployHost, DeployRequest, DeployStatus, HostReport


class DeployState(StrEnum):
    """How a deploy stands; all but `RUNNING` are final."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


class HostState(StrEnum):
    """How one host of a deploy stands; the last two are final."""

    WAITING = "waiting"
    """It is not its turn yet."""
    OFFLINE = "offline"
    """It is its turn, but its agent is not connected."""
    ORDERED = "ordered"
    FETCHING = "fetching"
    VERIFIED = "verified"
    """All layers are in its store, checked."""
    LOADING = "loading"
    DONE = "done"
    """Verified and, where that was requested, loaded into its engine."""
    FAILED = "failed"


REPORTED = frozenset(set(HostState) - {HostState.WAITING, HostState.OFFLINE, HostState.ORDERED})
"""States that a host may report of itself."""

FINAL = frozenset({HostState.DONE, HostState.FAILED})

UNDER_WAY = frozenset(
    {HostState.ORDERED, HostState.FETCHING, HostState.VERIFIED, HostState.LOADING}
)

_SHOWN_FIRST = {HostState.FAILED: 0, HostState.OFFLINE: 2, HostState.WAITING: 3, HostState.DONE: 4}


@dataclass(slots=True)
class Member:
    """One host of a deploy; it was done or failed at *ended*, in seconds since 1970."""

    id: str
    name: str
    zone: str
    state: HostState = HostState.WAITING
    report: HostReport | None = None
    reason: str = ""
    ended: float = 0.0


@dataclass(slots=True)
class Deploy:
    """One deploy; times in seconds since 1970.

    *queue* holds the hosts whose turn it is, *later* those that wait for the canary hosts.
    """

    id: str
    request: DeployRequest
    digest: str
    created: float
    members: dict[str, Member]
    state: DeployState = DeployState.RUNNING
    why: str = ""
    ended: float = 0.0
    canary_done: float = 0.0
    revision: int = 0
    counts: Counter[HostState] = field(default_factory=Counter)
    queue: deque[Member] = field(default_factory=deque)
    later: list[Member] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.enqueue()

    @property
    def deadline(self) -> float:
        """When it gives up on hosts that are not done."""
        return self.created + self.request.deadline

    @property
    def is_running(self) -> bool:
        """Whether hosts may still be ordered."""
        return self.state is DeployState.RUNNING

    @property
    def under_way(self) -> int:
        """Hosts that have been ordered and are not done."""
        return sum(self.counts[state] for state in UNDER_WAY)

    @property
    def canaries(self) -> list[Member]:
        """The hosts that go first; none where no canary was requested."""
        count = self.request.canary
        return [member for number, member in enumerate(self.members.values()) if number < count]

    def enqueue(self) -> None:
        """Count the hosts by state and queue those that are not final; canary hosts go first."""
        members = list(self.members.values())
        self.counts = Counter(member.state for member in members)
        canary = self.request.canary
        left = [member for member in members if member.state not in FINAL]
        first = {member.id for member in members[:canary]}
        if canary:  # who may go, the pause included, is looked at with the next change
            self.queue = deque(member for member in left if member.id in first)
            self.later = [member for member in left if member.id not in first]
        else:
            self.queue, self.later = deque(left), []

    def move(self, member: Member, state: HostState, reason: str = "") -> None:
        """*member* is in *state* from now on."""
        if (member.state, member.reason) != (state, reason):
            self.counts[member.state] -= 1
            self.counts[state] += 1
            member.state, member.reason = state, reason
            self.revision += 1

    def status(self, *, hosts: int = 0) -> DeployStatus:
        """The deploy as it is shown, with at most *hosts* of its hosts."""
        members = self.members.values()
        reports = [member.report for member in members if member.report]
        shown = sorted(members, key=_urgency)[:hosts] if hosts else []
        return DeployStatus(
            id=self.id,
            repository=self.request.repository,
            tag=self.request.tag,
            digest=self.digest,
            load=self.request.load,
            state=self.state,
            why=self.why,
            created=self.created,
            deadline=self.deadline,
            ended=self.ended,
            total=len(members),
            counts={state.value: count for state, count in self.counts.items() if count},
            bytes_total=sum(report.total for report in reports),
            bytes_done=sum(report.done for report in reports),
            from_registry=sum(report.from_registry for report in reports),
            from_hosts=sum(report.from_hosts for report in reports),
            from_held=sum(report.held for report in reports),
            rate=sum(
                member.report.rate
                for member in members
                if member.report and member.state is HostState.FETCHING
            ),
            revision=self.revision,
            hosts=[self._shown(member) for member in shown],
        )

    def _shown(self, member: Member) -> DeployHost:
        report = member.report or HostReport(deploy="", state="")
        return DeployHost(
            name=member.name,
            state=member.state,
            zone=member.zone,
            total=report.total,
            done=report.done,
            rate=report.rate,
            from_registry=report.from_registry,
            from_hosts=report.from_hosts,
            held=report.held,
            reason=member.reason,
            seconds=round(max(member.ended - self.created, 0.0), 3) if member.ended else 0.0,
        )


def _urgency(member: Member) -> tuple[int, float]:
    """Failed hosts first, then those under way by what they lack, then the rest, done ones last."""
    report = member.report
    share = report.done / report.total if report and report.total else 0.0
    return _SHOWN_FIRST.get(member.state, 1), share
