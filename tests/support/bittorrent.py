"""Other people's BitTorrent clients, set to find their peers by the torrent's tracker alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from docket.oci.digest import Digest
from docket.torrent.metainfo import Metainfo
from tests.support.namespaces import Host
from tests.support.processes import end, environment, tail, wait_until
from tests.support.requirements import need

FETCH_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Client:
    """A client by its *command*; *prepare* gives the words after it for a torrent and a folder."""

    command: str
    prepare: Callable[[str, Path], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Download:
    """A client at work in *place*."""

    process: subprocess.Popen[bytes]
    place: Path

    def finish(self, metainfo: Metainfo) -> Path:
        """The folder of the torrent, once all of it is there, whether the client goes on or not."""
        layout = self.place / metainfo.name
        self.wait(lambda: is_whole(layout, metainfo))
        return layout

    def wait(self, happened: Callable[[], bool]) -> None:
        """Return when *happened*, whether the client goes on or has ended by then."""
        log = self.place / "log"

        def ready() -> bool:
            if self.process.poll() is None:
                return happened()
            assert happened(), f"{self.process.args!r} ended:\n{tail(log)}"
            return True

        wait_until(ready, process=self.process, log=log, within=FETCH_SECONDS)


@contextmanager
def download(client: Client, host: Host, torrent: str | Path, folder: Path) -> Iterator[Download]:
    """Run *client* on *host* with its files below *place*, which is made; killed on the way out.

    *torrent* is a file, or a URL for a client that fetches it by itself.
    """
    need(client.command)
    folder.mkdir(parents=True)
    argv = [client.command, *client.prepare(str(torrent), folder)]
    with (folder / "log").open("wb") as output:
        process: subprocess.Popen[bytes] = host.popen(
            argv,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment(HOME=str(folder)),
        )
    try:
        yield Download(process, folder)
    finally:
        # some hang on their way out
        process.kill()
        end(process)


def is_whole(layout: Path, metainfo: Metainfo) -> bool:
    """Whether all files are there, of their size, and hash to what they are named after."""
    paths = [(layout / file.path, file) for file in metainfo.files]
    if not all(path.is_file() and path.stat().st_size == file.size for path, file in paths):
        return False
    return all(
        Digest.of_file(path) == file.digest if file.digest else path.read_bytes().strip(b"\0")
        for path, file in paths
    )


def _aria2(torrent: str, folder: Path) -> list[str]:
    return [
        f"--dir={folder}",
        "--seed-ratio=0",
        "--enable-dht=false",
        "--enable-dht6=false",
        "--bt-enable-lpd=false",
        "--listen-port=6881",
        "--no-conf",
        "--allow-overwrite=true",
        "--bt-tracker-interval=3",
        "--console-log-level=notice",
        "--summary-interval=0",
        torrent,
    ]


def _ctorrent(torrent: str, _place: Path) -> list[str]:
    return ["-E", "100", "-p", "2706", torrent]


def _transmission(torrent: str, folder: Path) -> list[str]:
    settings = {
        "utp-enabled": False,
        "dht-enabled": False,
        "lpd-enabled": False,
        "pex-enabled": False,
        "port-forwarding-enabled": False,
        "preallocation": 0,
    }
    config = folder / "config"
    config.mkdir()
    config.joinpath("settings.json").write_text(json.dumps(settings))
    return ["-g", str(config), "-w", str(folder), "-M", torrent]


def _qbittorrent(torrent: str, folder: Path) -> list[str]:
    config = folder / "profile" / "qBittorrent" / "config" / "qBittorrent.conf"
    config.parent.mkdir(parents=True)
    config.write_text(
        "[LegalNotice]\nAccepted=true\n"
        "[BitTorrent]\nSession\\BTProtocol=TCP\nSession\\DHTEnabled=false\n"
        "Session\\LSDEnabled=false\nSession\\PeXEnabled=false\nSession\\Port=6881\n"
        "[Network]\nPortForwardingEnabled=false\n"
    )
    options = [f"--profile={folder / 'profile'}", f"--save-path={folder}", "--skip-dialog=true"]
    return [*options, torrent]


def _rtorrent(torrent: str, folder: Path) -> list[str]:
    config = folder / "rtorrent.rc"
    config.write_text(
        "system.daemon.set = true\n"
        f"directory.default.set = {folder}\n"
        "network.port_range.set = 6890-6899\n"
        "dht.mode.set = disable\nprotocol.pex.set = no\ntrackers.use_udp.set = no\n"
        f"load.start = {torrent}\n"
    )
    return ["-n", "-o", f"import={config}"]


ARIA2 = Client("aria2c", _aria2)
CTORRENT = Client("ctorrent", _ctorrent)
TRANSMISSION = Client("transmission-cli", _transmission)
QBITTORRENT = Client("qbittorrent-nox", _qbittorrent)
RTORRENT = Client("rtorrent", _rtorrent)

CLIENTS = (ARIA2, CTORRENT, TRANSMISSION, QBITTORRENT, RTORRENT)
