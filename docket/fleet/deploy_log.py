"""The log of a deploy: the rows from which it comes back after a restart of the registry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from docket.fleet.deploy import Deploy, DeployState, HostState, Member
from docket.wire import DeployRequest, HostReport

Row = dict[str, Any]
"""A line of a log: JSON values, with ``event`` saying what happened."""


class _Created(msgspec.Struct):
    request: DeployRequest
    digest: str
    created: float
    members: dict[str, tuple[str, str]]


def rows_of(deploy: Deploy) -> Iterator[Row]:
    """The first row of a deploy's log: all that it was asked to do."""
    members = {member.id: (member.name, member.zone) for member in deploy.members.values()}
    created = _Created(deploy.request, deploy.digest, deploy.created, members)
    yield {"event": "created", **msgspec.to_builtins(created)}


def host_row(member: Member) -> Row:
    """The row of a host that is done or has failed."""
    return {
        "event": "host",
        "host": member.id,
        "state": member.state.value,
        "reason": member.reason,
        "report": msgspec.to_builtins(member.report),
        "time": member.ended,
    }


def ended_row(deploy: Deploy) -> Row:
    """The last row."""
    return {"event": "ended", "state": deploy.state.value, "why": deploy.why, "time": deploy.ended}


def replayed(deploy_id: str, rows: Iterable[Row]) -> Deploy | None:
    """The deploy that *rows* describe, or None without a first row; a bad row ends the log."""
    deploy: Deploy | None = None
    try:
        for row in rows:
            if deploy is None:
                deploy = _begun(deploy_id, row)
            else:
                _apply(deploy, row)
    except (KeyError, ValueError, TypeError, msgspec.ValidationError):
        pass  # a line that a crash has cut: what came before it holds
    if deploy:
        deploy.enqueue()
    return deploy


def _begun(deploy_id: str, row: Row) -> Deploy:
    created = msgspec.convert(row, _Created)
    members = {key: Member(key, name, zone) for key, (name, zone) in created.members.items()}
    return Deploy(deploy_id, created.request, created.digest, created.created, members)


def _apply(deploy: Deploy, row: Row) -> None:
    deploy.revision += 1
    if row["event"] == "host":
        member = deploy.members[row["host"]]
        member.report = msgspec.convert(row["report"], HostReport)
        member.state, member.reason = HostState(row["state"]), str(row["reason"])
        member.ended = float(row["time"])
    elif row["event"] == "canary":
        deploy.canary_done = float(row["time"])
    elif row["event"] == "ended":
        deploy.state, deploy.why = DeployState(row["state"]), str(row["why"])
        deploy.ended = float(row["time"])
