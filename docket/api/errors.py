"""The one table from docket's errors to HTTP statuses and OCI error codes."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route

from docket import errors
from docket.api.responses import json_response
from docket.errors import (
    UpstreamDenied,
    UpstreamError,
    UpstreamFetching,
    UpstreamLimited,
)
from docket.wire import FETCHING

_TABLE: tuple[tuple[type[errors.DocketError], int, str], ...] = (
    (errors.InvalidDigest, 400, "DIGEST_INVALID"),
    (errors.DigestMismatch, 400, "DIGEST_INVALID"),
    (errors.SizeMismatch, 400, "SIZE_INVALID"),
    (errors.InvalidReference, 400, "NAME_INVALID"),
    (errors.InvalidManifest, 400, "MANIFEST_INVALID"),
    (errors.WrongMediaType, 415, "UNSUPPORTED"),
    (errors.InvalidRequest, 400, "UNSUPPORTED"),
    (errors.TooLarge, 413, "SIZE_INVALID"),
    (errors.InvalidInput, 400, "UNSUPPORTED"),
    (errors.BlobUnknown, 404, "BLOB_UNKNOWN"),
    (errors.ManifestUnknown, 404, "MANIFEST_UNKNOWN"),
    (errors.ManifestBlobUnknown, 404, "MANIFEST_BLOB_UNKNOWN"),
    (errors.RepositoryUnknown, 404, "NAME_UNKNOWN"),
    (errors.UploadUnknown, 404, "BLOB_UPLOAD_UNKNOWN"),
    (errors.NotFound, 404, "NAME_UNKNOWN"),
    (errors.UploadConflict, 409, "BLOB_UPLOAD_INVALID"),
    (errors.UploadOutOfOrder, 416, "BLOB_UPLOAD_INVALID"),
    (errors.StoreFull, 507, "TOOMANYREQUESTS"),
    (errors.StoreError, 503, "UNAVAILABLE"),
    (UpstreamLimited, 429, "TOOMANYREQUESTS"),
    (UpstreamDenied, 403, "DENIED"),
    (UpstreamFetching, 503, FETCHING),
    (errors.RegistryError, 502, "UNAVAILABLE"),
)

_BY_STATUS = {404: "NAME_UNKNOWN", 405: "UNSUPPORTED"}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FAULT = "the registry failed at this request; its log says where"

log = logging.getLogger("docket.api")


def problem(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> Response:
    """An error as OCI distribution 1.1 § error codes spells it."""
    body = {"errors": [{"code": code, "message": message, "detail": None}]}
    return json_response(body, status=status, headers=headers)


def error_response(error: Exception) -> Response:
    """The response to *error*; what is the registry's own fault is logged by the caller."""
    status, code = status_of(error)
    message = errors.summary(error) if isinstance(error, errors.DocketError) else _FAULT
    if isinstance(error, OSError):
        message = f"the registry's disk or system failed: {error.strerror or type(error).__name__}"
    wait = error.retry_after if isinstance(error, UpstreamLimited | UpstreamFetching) else None
    return problem(status, code, message, {"Retry-After": str(wait)} if wait else None)


def status_of(error: Exception) -> tuple[int, str]:
    """The HTTP status and the OCI error code of *error*."""
    if isinstance(error, OSError):
        return (507, "TOOMANYREQUESTS") if error.errno in _FULL else (503, "UNAVAILABLE")
    rows = ((status, code) for type_, status, code in _TABLE if isinstance(error, type_))
    return next(rows, (500, "UNKNOWN"))


async def _docket_error(_request: Request, error: Exception) -> Response:
    # what an upstream does wrong is logged once, not with each request
    if status_of(error)[0] >= 500 and not isinstance(error, UpstreamError):
        log.error("%s", errors.summary(error))
    return error_response(error)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _BY_STATUS.get(error.status_code, "UNSUPPORTED")
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_allowed(request)))
    return problem(error.status_code, code, error.detail, headers)


def _allowed(request: Request) -> set[str]:
    """The methods of the path's routes, all of them: Starlette names those of the first."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    first = matching[0].path
    return set().union(*(route.methods or () for route in matching if route.path == first))


async def _disconnected(_request: Request, _error: Exception) -> Response:
    """Nobody reads it; a client that breaks off is no fault of the registry's."""
    return problem(400, "BLOB_UPLOAD_INVALID", "the request broke off")


EXCEPTION_HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    errors.DocketError: _docket_error,
    HTTPException: _http_exception,
    ClientDisconnect: _disconnected,
}
