"""One torrent of the whole ``docker save`` archive, which docket deployed in 2015: the baseline.

    python -m benchmarks.suite.baseline_2015 seed ARCHIVE TORRENT --port PORT
    python -m benchmarks.suite.baseline_2015 fetch FOLDER TORRENT --port PORT --peers HOST:PORT ...

Both print a line once they have all of it, and serve others until they are ended.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from threading import Event
from typing import Any

import libtorrent as lt
import torf

from docket.torrent.peer.session_tuning import REQUEST_DEPTH

# what docket's own sessions have, so that the two differ in what they deploy alone
_SETTINGS: dict[str, Any] = {
    "alert_mask": lt.alert.category_t.status_notification,
    "allow_multiple_connections_per_ip": True,
    "connection_speed": 200,
    "enable_dht": False,
    "enable_incoming_utp": False,
    "enable_lsd": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_upnp": False,
    "max_allowed_in_request_queue": REQUEST_DEPTH,
    "min_reconnect_time": 1,
    "request_queue_time": 1,
    "unchoke_slots_limit": -1,
    "whole_pieces_threshold": 0,
}
_WAIT_MS = 1000


def main() -> None:
    """Seed or fetch."""
    parser = argparse.ArgumentParser(prog="benchmarks.suite.baseline_2015", description=__doc__)
    parser.add_argument("task", choices=["seed", "fetch"])
    parser.add_argument("place", type=Path)
    parser.add_argument("torrent", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--peers", nargs="*", default=())
    options = parser.parse_args()
    folder = options.place
    if options.task == "seed":
        folder = options.place.parent
        _make(options.place, options.torrent)
    interfaces = {"listen_interfaces": f"0.0.0.0:{options.port}"}
    session = lt.session({**_SETTINGS, **interfaces})  # type: ignore[call-overload]
    handle = _joined(session, options.torrent, folder, seed=options.task == "seed")
    for peer in options.peers:
        host, _, port = peer.rpartition(":")
        handle.connect_peer((host, int(port)))
    while not handle.status().is_seeding:
        session.wait_for_alert(_WAIT_MS)
        session.pop_alerts()
    print("done", flush=True)
    Event().wait()


def _make(archive: Path, torrent: Path) -> None:
    made = torf.Torrent(archive, private=True)
    made.generate()
    made.write(torrent, validate=False, overwrite=True)


def _joined(session: Any, torrent: Path, folder: Path, *, seed: bool) -> Any:
    wanted = lt.add_torrent_params()
    wanted.ti = lt.torrent_info(str(torrent))
    wanted.save_path = str(folder)
    if seed:
        wanted.flags |= lt.torrent_flags.seed_mode
    return session.add_torrent(wanted)


if __name__ == "__main__":
    main()
