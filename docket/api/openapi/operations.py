"""The parts of an operation in the OpenAPI description."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from docket.api.openapi.schemas import JSON, TEXT, Json, ref

_ALWAYS_REFUSED = (405, 503)


def parameter(location: str, name: str, schema: Json, text: str, *, required: bool = False) -> Json:
    """A parameter of a call: *place* is path, query or header."""
    return {
        "name": name,
        "in": location,
        "required": required or location == "path",
        "description": text,
        "schema": schema,
    }


def answer(text: str, *headers: str, media_type: str = "", schema: Json | None = None) -> Json:
    """A response with these headers and one media type."""
    described: Json = {"description": text}
    if headers:
        described["headers"] = {name: {"schema": TEXT} for name in headers}
    if media_type:
        described["content"] = {media_type: {"schema": schema} if schema else {}}
    return described


def json_answer(text: str, schema: Json, *headers: str, media_type: str = JSON) -> Json:
    """A response in JSON, or another type of text that *schema* describes."""
    return answer(text, *headers, media_type=media_type, schema=schema)


def body(content: Json, *, required: bool = True) -> Json:
    """A request body by media type."""
    return {"required": required, "content": content}


def takes_json(name: str, *, required: bool = True) -> Json:
    """A request body in JSON: the message of that name."""
    return body({JSON: {"schema": ref(name)}}, required=required)


def call(
    summary: str,
    done: dict[int, Json],
    *refused: int,
    takes: tuple[Json, ...] = (),
    is_read: bool = False,
    **more: Any,
) -> Json:
    """An operation: what it answers when it is *done*, and with which statuses it refuses.

    Calls that change something may be refused to a client (403), all of them by a failing disk.
    """
    refused = (*refused, *_ALWAYS_REFUSED, *(() if is_read else (403,)))
    if JSON in more.get("requestBody", {}).get("content", {}):
        refused += (415,)
    answers = {str(status): response for status, response in done.items()}
    for status in refused:
        phrase = HTTPStatus(status).phrase
        headers = ("Allow",) if status == 405 else ()
        answers.setdefault(str(status), json_answer(phrase, ref("Error"), *headers))
    return {"summary": summary, "parameters": list(takes), "responses": answers, **more}


def get(
    summary: str, done: dict[int, Json], *refused: int, takes: tuple[Json, ...] = ()
) -> dict[str, Json]:
    """GET, and HEAD, which answers the same without a body."""
    got = call(summary, done, *refused, takes=takes, is_read=True)
    bare = {
        status: {key: value for key, value in response.items() if key != "content"}
        for status, response in got["responses"].items()
    }
    return {"get": got, "head": got | {"summary": f"{summary}: headers alone", "responses": bare}}
