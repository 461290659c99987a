"""A registry's fleet over HTTP: what agents send it, hosts, and deploys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from docket.remote.messages import Message, decoded, lines
from docket.remote.transport import Connection
from docket.wire import (
    AgentReport,
    DeployRequest,
    DeployRows,
    DeployStatus,
    HostInfo,
    HostRow,
    HostRows,
    Order,
)

STREAM_SILENCE_SECONDS = 180.0
"""An order stream that is silent for longer is dead: the registry pings every 60 s at most."""

_JSON = {"Content-Type": "application/json"}
_MAX_LINE = 1 << 20
_PAGE = 1000

MAX_STATUS = 32 << 20
"""Bytes of a deploy with all its hosts, or of a page of hosts."""


class FleetClient:
    """The fleet's calls of one registry; safe to use from many threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def orders(self, info: HostInfo) -> Iterator[Order]:
        """Connect as the agent of a host: its orders, as they come, until the stream ends.

        Raises `RegistryUnreachable` when the connection can't be made, breaks or falls silent.
        """
        # pings come far apart: the rate that other responses must have means nothing here
        connection = Connection(
            self._connection.address,
            connections=1,
            read_seconds=STREAM_SILENCE_SECONDS,
            is_steady=False,
        )
        path, content = "/v2/_docket/agents", msgspec.json.encode(info)
        with (
            closing(connection),
            connection.streamed("POST", path, success={200}, body=content, headers=_JSON) as opened,
        ):
            for line in lines(connection.blocks(opened), path, limit=_MAX_LINE):
                if line:
                    yield decoded(Order, line, path, opened.status)

    def report(self, host_id: str, body: AgentReport) -> None:
        """Report progress, and the host when it changed.

        Raises `RegistryRefused` with status 404 when the agent should connect first.
        """
        path = f"/v2/_docket/agents/{host_id}/reports"
        content = msgspec.json.encode(body)
        self._connection.call("POST", path, success={204}, body=content, headers=_JSON)

    def hosts(self, *, zone: str = "", labels: dict[str, str] | None = None) -> list[HostRow]:
        """All hosts that match, by name."""
        chosen = [("zone", zone)] if zone else []
        chosen += [("label", f"{name}={value}") for name, value in (labels or {}).items()]
        rows: list[HostRow] = []
        while True:
            last = f"{rows[-1].name} {rows[-1].id}" if rows else ""
            query = urlencode([*chosen, ("n", str(_PAGE)), ("last", last)])
            page = self._get(HostRows, f"/v2/_docket/hosts?{query}").hosts
            rows += page
            if len(page) < _PAGE:
                return rows

    def create(self, request: DeployRequest) -> DeployStatus:
        """Begin a deploy. Returning means that the registry goes on with it whatever happens here.

        Raises `RegistryRefused` when no host is chosen or the image is unknown.
        """
        path, content = "/v2/_docket/deploys", msgspec.json.encode(request)
        response, answer = self._connection.call(
            "POST", path, success={201}, limit=MAX_STATUS, body=content, headers=_JSON
        )
        return decoded(DeployStatus, answer, path, response.status)

    def deploys(self) -> list[DeployStatus]:
        """The deploys that the registry remembers, the newest first, without hosts."""
        return self._get(DeployRows, "/v2/_docket/deploys").deploys

    def deploy(self, deploy_id: str, *, hosts: int, after: int | None = None) -> DeployStatus:
        """A deploy with *hosts* of its hosts; with *after*, once it is past that revision.

        Waiting ends after 15 s with whatever there is.
        """
        query: dict[str, Any] = {"hosts": hosts} | ({} if after is None else {"after": after})
        path = f"/v2/_docket/deploys/{quote(deploy_id, safe='')}"
        return self._get(DeployStatus, f"{path}?{urlencode(query)}")

    def stop(self, deploy_id: str) -> None:
        """Stop a deploy; hosts that have the image keep it."""
        path = f"/v2/_docket/deploys/{quote(deploy_id, safe='')}"
        self._connection.call("DELETE", path, success={202})

    def _get(self, shape: type[Message], path: str) -> Message:
        response, content = self._connection.call("GET", path, success={200}, limit=MAX_STATUS)
        return decoded(shape, content, path, response.status)
