"""Docket's calls for a fleet: agents connect and report, people list hosts and deploy."""

from __future__ import annotations

import re

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from docket.api.fleet_hub import FleetHub, OrderStream
from docket.api.responses import empty_response, json_response, read_json
from docket.api.services import Registry, find_manifest, registry_of
from docket.errors import InvalidRequest
from docket.fleet.hosts import Selector, page_key
from docket.oci.digest import Digest
from docket.oci.reference import is_tag, parse_repository
from docket.wire import AgentReport, DeployRequest, DeployRows, HostInfo, HostRows

MAX_ROWS = 10_000
MAX_WAIT_SECONDS = 15.0
"""How long a request waits for news: less than a client waits for an answer."""
_MAX_INFO = 1 << 20
_MAX_REQUEST = 8 << 20
_ID = re.compile(r"[0-9a-f]{32}")


async def connect(request: Request) -> Response:
    """POST a `HostInfo`: the answer is the stream of orders to this host."""
    hub = await _hub(request)
    info = await read_json(request, HostInfo, limit=_MAX_INFO)
    return OrderStream(hub, info, request.client.host if request.client else "")


async def report(request: Request) -> Response:
    """POST an `AgentReport`."""
    hub = await _hub(request)
    agent = request.path_params["agent"]
    if not _ID.fullmatch(agent):
        raise InvalidRequest("an agent's id has 32 hex digits")
    await hub.report(agent, await read_json(request, AgentReport, limit=_MAX_INFO))
    return empty_response(204, {})


async def hosts(request: Request) -> Response:
    """GET the hosts, by name: those of ``?zone=`` and of every ``?label=key=value``."""
    hub = await _hub(request)
    query = request.query_params
    labels = dict(_label(text) for text in query.getlist("label"))
    rows = hub.hosts.rows(Selector(query.get("zone", ""), labels))
    limit = _count(request, "n", MAX_ROWS)
    last = query.get("last", "")
    page = [row for row in rows if page_key(row) > last][:limit]
    return json_response(msgspec.to_builtins(HostRows(hosts=page, total=len(rows))))


async def create(request: Request) -> Response:
    """POST a `DeployRequest`: 201 with the deploy, whose digest is fixed from now on."""
    hub = await _hub(request)
    wanted = await read_json(request, DeployRequest, limit=_MAX_REQUEST)
    registry = registry_of(request)
    digest = await registry.threads.fetch(lambda: _fixed(registry, wanted))
    deploy = await hub.create(wanted, str(digest))
    headers = {"Location": f"/v2/_docket/deploys/{deploy.id}"}
    return json_response(msgspec.to_builtins(deploy.status()), status=201, headers=headers)


async def deploys(request: Request) -> Response:
    """GET all deploys that are remembered, the newest first, without their hosts."""
    hub = await _hub(request)
    rows = [deploy.status() for deploy in hub.deploys.all()]
    return json_response(msgspec.to_builtins(DeployRows(deploys=rows)))


async def deploy(request: Request) -> Response:
    """GET one deploy with ``?hosts=`` of its hosts, once it is past revision ``?after=``."""
    hub = await _hub(request)
    chosen = hub.deploys.get(request.path_params["deploy"])
    if "after" in request.query_params:
        await hub.news(chosen, _count(request, "after", 1 << 53), MAX_WAIT_SECONDS)
    shown = _count(request, "hosts", MAX_ROWS * 2)
    return json_response(msgspec.to_builtins(chosen.status(hosts=shown)))


async def stop(request: Request) -> Response:
    """DELETE: stop the deploy; hosts that have the image keep it."""
    hub = await _hub(request)
    await hub.apply(hub.deploys.stop(request.path_params["deploy"]))
    return empty_response(202, {})


async def _hub(request: Request) -> FleetHub:
    registry = registry_of(request)
    await registry.fleet.start(registry.store.location, registry.stop)
    return registry.fleet


def _fixed(registry: Registry, wanted: DeployRequest) -> Digest:
    """The digest that the deploy is about: the one given, or what the tag points to now."""
    repository = parse_repository(wanted.repository)
    if wanted.tag and not is_tag(wanted.tag):
        raise InvalidRequest(f"{wanted.tag[:128]!r} is not a tag")
    if not (wanted.digest or wanted.tag):
        raise InvalidRequest("a deploy names a tag or a digest")
    target = Digest.parse(wanted.digest) if wanted.digest else wanted.tag
    return find_manifest(registry, repository, target).digest


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InvalidRequest(f"{text[:80]!r} is not a label such as role=web")
    return name, value


def _count(request: Request, name: str, most: int) -> int:
    text = request.query_params.get(name, str(most) if name == "n" else "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise InvalidRequest(f"{name} must be a count")
    return min(int(text), most)


ROUTES = [
    Route("/v2/_docket/agents", connect, methods=["POST"]),
    Route("/v2/_docket/agents/{agent}/reports", report, methods=["POST"]),
    Route("/v2/_docket/hosts", hosts),
    Route("/v2/_docket/deploys", create, methods=["POST"]),
    Route("/v2/_docket/deploys", deploys, methods=["GET"]),
    Route("/v2/_docket/deploys/{deploy}", deploy, methods=["GET"]),
    Route("/v2/_docket/deploys/{deploy}", stop, methods=["DELETE"]),
]
