"""The OpenAPI document is true: it has all calls, and none answers what isn't in it."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from docket.api import Registry as Served
from docket.api import app
from docket.api.openapi import document
from tests.api.conftest import running
from tests.api.http import Registry, Repository
from tests.store.samples import image

_METHODS = {"get", "head", "post", "put", "patch", "delete"}
_EXAMPLES = 20
_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    allow_header_conformance,
]

_IMAGE = image("layer")
_SESSION = str(uuid.UUID(int=0))
_KNOWN = {
    "name": "fuzz/app",
    "reference": "latest",
    "digest": str(_IMAGE.digest),
    "upload": _SESSION,
    "zone": "rack-1",
    "agent": "0" * 32,
    "deploy": "12345678",
}
"""Values for what paths name; the session stands for one that is open."""


def described() -> dict[str, Any]:
    """The document, in which requests that follow it often name something that is there."""
    plain: dict[str, Any] = json.loads(json.dumps(document()))
    for item in plain["paths"].values():
        for parameter in item.get("parameters", []):
            name = parameter["name"]
            constant = {"const": _KNOWN[name]}
            sure = name in ("name", "upload")
            parameter["schema"] = constant if sure else {"anyOf": [constant, parameter["schema"]]}
    return plain


# an agent's stream of orders has no end to wait for: tests/api/test_fleet.py reads it
schema = schemathesis.openapi.from_dict(described()).exclude(path="/v2/_docket/agents")


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry process; it may not log an error until it ends."""
    with running(tmp_path_factory.mktemp("fuzzed") / "store", pin_seconds=3600) as opened:
        yield opened


@pytest.fixture
def repo(fuzzed: Registry) -> Repository:
    """The repository that paths name, with an image, whatever was deleted before."""
    repository = fuzzed.repository(_KNOWN["name"])
    repository.push(_IMAGE, _KNOWN["reference"])
    return repository


def test_every_route_is_in_the_document_and_no_other() -> None:
    """Each route and method of the application is described, and all that is described is there."""
    routes: Any = app(Served(None, None, None)).routes  # type: ignore[arg-type]
    served = {
        (re.sub(r":path\}", "}", route.path), method.lower())
        for route in routes
        for method in route.methods
    }
    described = {
        (path, method)
        for path, item in document()["paths"].items()
        for method in item.keys() & _METHODS
    }
    assert described == served


def test_the_document_is_openapi(fuzzed: Registry) -> None:
    """GET /openapi.json gives the document, which follows OpenAPI 3.1."""
    answer = fuzzed.ask("GET", "/openapi.json")
    assert answer.status == 200
    assert answer.json == document()
    schemathesis.openapi.from_dict(answer.json).validate()


@schema.parametrize()
@settings(
    max_examples=_EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_in_the_document(case: schemathesis.Case[Any], repo: Repository) -> None:
    """Whatever a request is, no answer is a 5xx or other than the document has it."""
    if case.path_parameters.get("upload") == _SESSION:
        case.path_parameters["upload"] = repo.begin().rpartition("/")[2]
    case.call_and_validate(
        base_url=repo.registry.url,
        checks=_CHECKS,
    )
