"""The first docket's way: one torrent of an image's whole tar, by libtorrent with its defaults.

``seed ADDRESS TORRENT ARCHIVE`` makes the torrent, tracks and seeds it, and says so in a line;
``leech ADDRESS TORRENT FOLDER`` fetches it, says so, and seeds. Both go on until they are ended.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import libtorrent as lt

from docket.torrent.tracker.announce import Announce
from docket.torrent.tracker.peers import Tracker

_TRACKER_PORT = 6969
_SEED_PORT = 6881
_POLL_SECONDS = 0.1


def seed(address: str, torrent: Path, archive: Path) -> None:
    """Make, track and seed the torrent."""
    made = lt.create_torrent(lt.list_files(str(archive)))
    made.add_tracker(f"http://{address}:{_TRACKER_PORT}/announce")
    lt.set_piece_hashes(made, str(archive.parent))
    torrent.write_bytes(lt.bencode(made.generate()))
    _track(address)
    session = _session(address)
    handle = _add(session, torrent, archive.parent)
    while not handle.status().is_seeding:
        time.sleep(_POLL_SECONDS)
    _say(session)


def leech(address: str, torrent: Path, folder: Path) -> None:
    """Fetch the torrent and go on seeding."""
    session = _session(address)
    handle = _add(session, torrent, folder)
    while not handle.status().is_seeding:
        time.sleep(_POLL_SECONDS)
    _say(session)


def _session(address: str) -> Any:
    # all else as libtorrent has it
    return lt.session({"listen_interfaces": f"{address}:{_SEED_PORT}"})


def _add(session: Any, torrent: Path, folder: Path) -> Any:
    params = lt.load_torrent_file(str(torrent))
    params.save_path = str(folder)
    return session.add_torrent(params)


def _say(session: Any) -> None:
    print(json.dumps({"port": session.listen_port()}), flush=True)
    threading.Event().wait()


def _track(address: str) -> None:
    tracker = Tracker()

    class Announces(BaseHTTPRequestHandler):
        """A tracker for every torrent."""

        def do_GET(self) -> None:
            query = self.path.partition("?")[2].encode()
            report = Announce.parse(query, address=self.client_address[0])
            content = tracker.announce(report)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_words: Any) -> None:
            """Nothing for each request."""

    server = ThreadingHTTPServer((address, _TRACKER_PORT), Announces)
    threading.Thread(target=server.serve_forever, daemon=True).start()


if __name__ == "__main__":
    role, where, *paths = sys.argv[1:]
    {"seed": seed, "leech": leech}[role](where, *map(Path, paths))
