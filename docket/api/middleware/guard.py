"""The last resort for exceptions: one JSON error for the client, one line in the log."""

from __future__ import annotations

import logging
import os
import traceback
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from docket.api.errors import error_response
from docket.errors import summary

log = logging.getLogger("docket.api")


class Guard:
    """Middleware that answers what no route has caught; with DOCKET_DEBUG the log has tracebacks.

    After the response has begun, returning without its end makes the server close the connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def sending(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:  # the outermost edge of a request
            log_unexpected(f"{scope['method']} {scope['path'][:200]}", error)
            if not has_begun:
                await error_response(error)(scope, receive, send)


def log_unexpected(what: str, error: Exception) -> None:
    """One line that says what failed and where in the code."""
    log.error(
        "%s failed: %s: %s%s",
        "".join(letter if letter.isprintable() else "?" for letter in what),
        type(error).__name__,
        summary(error),
        _where(error),
        exc_info=error if os.environ.get("DOCKET_DEBUG") else None,
    )


def _where(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    return "".join(f" ({Path(frame.filename).name}:{frame.lineno})" for frame in frames)
