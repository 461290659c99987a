"""What the calls about agents, hosts and deploys take and answer, for the OpenAPI description."""

from __future__ import annotations

from docket.api.openapi.operations import answer, call, get, json_answer, parameter, takes_json
from docket.api.openapi.schemas import COUNT, TEXT, Json, list_of, ref, whole

FLEET_IN_PATH = (
    parameter("path", "agent", whole("[0-9a-f]{32}"), "the id that the agent chose"),
    parameter("path", "deploy", TEXT, "the id of the deploy"),
)

_DEPLOY = json_answer("the deploy", ref("DeployStatus"))
_HOSTS = parameter("query", "hosts", COUNT, "how many of its hosts to show")
_AFTER = parameter("query", "after", COUNT, "wait up to 15 s until it is past this revision")

FLEET_PATHS: dict[str, Json] = {
    "/v2/_docket/agents": {
        "post": call(
            "Connect as the agent of a host: the response is a stream that stays open",
            {
                200: json_answer(
                    "lines: an order each; a ping at least every 60 s",
                    ref("Order"),
                    media_type="application/x-ndjson",
                )
            },
            *(400, 413, 415, 507),
            requestBody=takes_json("HostInfo"),
        )
    },
    "/v2/_docket/agents/{agent}/reports": {
        "post": call(
            "Report how far a host is with its deploys",
            {204: answer("taken")},
            *(400, 404, 413, 415, 507),
            requestBody=takes_json("AgentReport"),
        )
    },
    "/v2/_docket/hosts": get(
        "The hosts whose agents are connected, or were not long ago, by name",
        {200: json_answer("a page of rows", ref("HostRows"))},
        400,
        takes=(
            parameter("query", "zone", TEXT, "of this zone alone"),
            parameter("query", "label", list_of(TEXT), "with this label, key=value"),
            parameter("query", "n", COUNT, "how many, at most 10000"),
            parameter("query", "last", TEXT, "the name after which the page begins"),
        ),
    ),
    "/v2/_docket/deploys": {
        "post": call(
            "Begin a deploy; its digest is fixed from now on",
            {201: json_answer("the deploy", ref("DeployStatus"), "Location")},
            *(400, 404, 413, 415, 507),
            requestBody=takes_json("DeployRequest"),
        ),
        **get("The deploys that are remembered", {200: json_answer("rows", ref("DeployRows"))}),
    },
    "/v2/_docket/deploys/{deploy}": {
        **get("One deploy", {200: _DEPLOY}, *(400, 404), takes=(_HOSTS, _AFTER)),
        "delete": call("Stop a deploy", {202: answer("stopped")}, *(404, 507)),
    },
}
