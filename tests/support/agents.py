"""Stand-ins for agents: they connect to a registry, read their orders and report what they like."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import urllib3

JSON = {"Content-Type": "application/json"}


@dataclass
class StandIn:
    """A connected agent: its orders, and its reports."""

    id: str
    url: str
    pool: urllib3.PoolManager
    lines: Iterator[bytes]

    def order(self) -> dict[str, Any]:
        """The next order."""
        order = json.loads(next(self.lines))
        assert isinstance(order, dict)
        return order

    def report(self, deploy: str, state: str, **more: Any) -> int:
        """Report; the status of the answer."""
        body = json.dumps({"reports": [{"deploy": deploy, "state": state, **more}]}).encode()
        address = f"{self.url}/v2/_docket/agents/{self.id}/reports"
        return self.pool.request("POST", address, body=body, headers=JSON).status


@contextmanager
def stand_in(url: str, name: str, **more: Any) -> Iterator[StandIn]:
    """An agent of a host *name* at the registry *url*, connected until the end of the block."""
    host_id = more.pop("id", None) or secrets.token_hex(16)
    body = json.dumps({"id": host_id, "name": name, **more}).encode()
    with urllib3.PoolManager(retries=False, timeout=60) as pool:
        address = f"{url}/v2/_docket/agents"
        response = pool.request("POST", address, body=body, headers=JSON, preload_content=False)
        assert response.status == 200, response.data
        try:
            yield StandIn(host_id, url, pool, _lines(response))
        finally:
            response.close()


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    unread = b""
    for block in response.stream(1, decode_content=False):
        *whole, unread = (unread + block).split(b"\n")
        yield from whole
