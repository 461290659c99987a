"""Passes announces of libtorrent on to a tracker that only docket's HTTP client reaches.

libtorrent knows neither HTTP proxies nor a registry's credentials, has certificates of its own and
refuses host names with underscores. So it announces to a relay on loopback.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from docket.errors import DocketError, summary
from docket.torrent.tracker.announce import failure

_REQUEST_SECONDS = 5.0
_MAX_QUERY = 2048


class AnnounceRelay:
    """A tracker on 127.0.0.1, until it is closed; only who knows its URL can use it."""

    def __init__(self, send: Callable[[str], bytes]) -> None:
        """*send* gets the raw query of each announce and returns the tracker's bencoded response.

        When it raises a `DocketError`, the announce is refused with that reason.
        """
        path = f"/{secrets.token_hex(16)}/announce"

        class Handler(BaseHTTPRequestHandler):
            timeout = _REQUEST_SECONDS

            def do_GET(self) -> None:
                """Pass an announce on."""
                own, _, query = self.path.partition("?")
                if own != path or len(query) > _MAX_QUERY:
                    self.send_error(404)
                    return
                content = _sent(send, query)
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_words: object) -> None:
                """Log nothing: the output is that of the command."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}{path}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="announce-relay", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Accept no more announces."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Its threads may wait for a tracker when it is closed: that waits for none of them."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a client that disconnects early is libtorrent at its end."""


def _sent(send: Callable[[str], bytes], query: str) -> bytes:
    try:
        return send(query)
    except DocketError as error:
        return failure(summary(error))
