"""The baseline: one torrent of the whole ``docker save`` archive, as docket deployed in 2015.

    python -m benchmarks.fleet.baseline_2015 seed ADDRESS TORRENT ARCHIVE
    python -m benchmarks.fleet.baseline_2015 fetch ADDRESS TORRENT FOLDER

libtorrent has its default settings. ``seed`` makes the torrent, tracks it and seeds the archive;
``fetch`` downloads it. Both listen on free ports of ADDRESS, print a line of JSON once they have
all of the archive, and serve other peers until they are ended.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import libtorrent as lt

_ALERT_WAIT_MS = 1000
_ANNOUNCE_SECONDS = 1800
_PEERS_PER_RESPONSE = 50


def main() -> None:
    """Seed or fetch."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.fleet.baseline_2015", description=__doc__.split("\n")[0]
    )
    parser.add_argument("task", choices=["seed", "fetch"])
    parser.add_argument("address", help="of this host")
    parser.add_argument("torrent", type=Path)
    parser.add_argument("path", type=Path, help="the archive to seed, or the folder to fetch into")
    options = parser.parse_args()
    session = lt.session({"listen_interfaces": f"{options.address}:0"})
    folder = options.path
    if options.task == "seed":
        folder = options.path.parent
        _make_torrent(options.path, options.torrent, tracker=_start_tracker(options.address))
    _complete(session, options.torrent, folder)
    print(json.dumps({"port": session.listen_port()}), flush=True)
    threading.Event().wait()


def _make_torrent(archive: Path, target: Path, *, tracker: str) -> None:
    torrent = lt.create_torrent(lt.list_files(str(archive)))
    torrent.add_tracker(tracker)
    lt.set_piece_hashes(torrent, str(archive.parent))
    target.write_bytes(lt.bencode(torrent.generate()))


def _complete(session: Any, torrent: Path, folder: Path) -> None:
    """Return once *folder* has all of what *torrent* describes."""
    params = lt.load_torrent_file(str(torrent))
    params.save_path = str(folder)
    handle = session.add_torrent(params)
    while not handle.status().is_seeding:
        session.wait_for_alert(_ALERT_WAIT_MS)
        session.pop_alerts()


def _start_tracker(address: str) -> str:
    """Track one torrent in threads of this process; its announce URL."""
    peers: set[bytes] = set()
    lock = threading.Lock()

    class Announce(BaseHTTPRequestHandler):
        """Answers with other peers at random, in compact form (BEP 23)."""

        def do_GET(self) -> None:
            port = int(parse_qs(urlsplit(self.path).query)["port"][0])
            peer = IPv4Address(self.client_address[0]).packed + port.to_bytes(2, "big")
            with lock:
                others = list(peers - {peer})
                peers.add(peer)
            chosen = random.sample(others, min(len(others), _PEERS_PER_RESPONSE))
            response: Any = {"interval": _ANNOUNCE_SECONDS, "peers": b"".join(chosen)}
            content = lt.bencode(response)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: Any) -> None:
            """No line for each request."""

    server = ThreadingHTTPServer((address, 0), Announce)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://{address}:{server.server_port}/announce"


if __name__ == "__main__":
    main()
