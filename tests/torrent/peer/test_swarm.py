"""Swarms of real peers on loopback: seeding, fetching, and what can go wrong."""

from __future__ import annotations

import errno
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from docket.errors import SwarmError
from docket.oci.digest import Digest
from docket.pieces import PIECE_LENGTH, have_pieces
from docket.torrent.metainfo import Metainfo
from docket.torrent.peer.download import FetchProgress, FetchResult
from docket.torrent.peer.session_options import SessionOptions
from docket.torrent.peer.swarm import Swarm
from tests.support.requirements import missing, need, need_root
from tests.torrent.samples import Sample, sample, until

_PATIENT = 30.0
_SLACK = 64 * 1024

_LARGE, _SMALL = 6_000_000, 300_001
_IMAGE = sample([_LARGE, _SMALL])
_METAINFO = _IMAGE.metainfo()
_MANIFEST, _CONFIG, _LARGE_LAYER, _SMALL_LAYER = _IMAGE.digests
_LAYERS = [_LARGE_LAYER, _SMALL_LAYER]

NewSwarm = Callable[..., Swarm]


@pytest.fixture
def new_swarm() -> Iterator[NewSwarm]:
    """Makes peers that listen on loopback; they are closed at the end."""
    with ExitStack() as stack:

        def make(**options: Any) -> Swarm:
            return stack.enter_context(Swarm(SessionOptions(listen="127.0.0.1:0", **options)))

        yield make


@pytest.fixture
def seed(new_swarm: NewSwarm, tmp_path: Path) -> Swarm:
    """A peer that has all of the image."""
    swarm = new_swarm()
    swarm.seed(_METAINFO, _IMAGE.lay_out(tmp_path / "seed"))
    return swarm


@dataclass
class Fetching:
    """A fetch by *swarm* into *folder* from the one peer *source*; what it reports is kept."""

    swarm: Swarm
    folder: Path
    source: Swarm | None
    metainfo: Metainfo = _METAINFO
    image: Sample = _IMAGE
    until: Callable[[FetchProgress], bool] = lambda _progress: False
    completed: list[Digest] = field(default_factory=list)
    reports: list[FetchProgress] = field(default_factory=list)
    seconds: float = 0.0
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def run(
        self,
        wanted: Collection[Digest],
        *,
        have: dict[Digest, list[bool]] | None = None,
        patience: float = _PATIENT,
        expects_others: bool = False,
    ) -> FetchResult:
        """Fetch *wanted*; all else is held."""
        began = time.monotonic()
        try:
            return self.swarm.fetch(
                self.metainfo,
                self.folder,
                wanted=wanted,
                held=[digest for digest in self.image.digests if digest not in wanted],
                have=have or {},
                on_progress=self._progress,
                on_complete=self._complete,
                patience=patience,
                expects_others=expects_others,
                cancelled=self._cancelled,
            )
        finally:
            self.seconds = time.monotonic() - began

    def _progress(self, progress: FetchProgress) -> None:
        if not self.reports and self.source:
            self.swarm.connect(self.metainfo.info_hash, "127.0.0.1", self.source.port)
        self.reports.append(progress)
        if self.until(progress):
            self._cancelled.set()

    def _complete(self, digest: Digest, path: Path) -> None:
        assert Digest.of_file(path) == digest
        self.completed.append(digest)


def test_a_host_fetches_a_whole_image(seed: Swarm, new_swarm: NewSwarm, tmp_path: Path) -> None:
    """All blobs come, each is told once when it can be read, and no pad becomes a file."""
    folder = _IMAGE.lay_out(tmp_path / "host", without=_IMAGE.digests)
    fetching = Fetching(new_swarm(), folder, seed)
    result = fetching.run(_IMAGE.digests)
    assert not result.stalled
    assert sorted(fetching.completed) == sorted(_IMAGE.digests)
    assert all(all(result.pieces[digest]) for digest in _IMAGE.digests)
    size = sum(map(len, _IMAGE.all_blobs))
    assert size <= result.payload <= size * 1.02 + _SLACK
    assert sorted(path.name for path in folder.iterdir()) == ["blobs", "index.json", "oci-layout"]


def test_held_layers_are_neither_fetched_nor_touched(
    seed: Swarm, new_swarm: NewSwarm, tmp_path: Path
) -> None:
    """Only what is wanted moves; held files keep their inode, their times and their mode."""
    folder = _IMAGE.lay_out(tmp_path / "host", without=[_SMALL_LAYER])
    in_store = [_MANIFEST, _CONFIG, _LARGE_LAYER]
    before = [_identity(folder / digest.layout_path) for digest in in_store]
    fetching = Fetching(new_swarm(), folder, seed)
    result = fetching.run([_SMALL_LAYER])
    assert fetching.completed == [_SMALL_LAYER]
    assert _SMALL <= result.payload <= _SMALL * 1.02 + _SLACK
    assert [_identity(folder / digest.layout_path) for digest in in_store] == before
    assert list(result.pieces) == [_SMALL_LAYER]


def test_what_is_neither_wanted_nor_held_does_not_come(
    seed: Swarm, new_swarm: NewSwarm, tmp_path: Path
) -> None:
    """A blob that nobody asked for isn't fetched, and its file isn't made."""
    folder = _IMAGE.lay_out(tmp_path / "host", without=_LAYERS)
    host = new_swarm()
    result = host.fetch(
        _METAINFO,
        folder,
        wanted=[_SMALL_LAYER],
        held=[_MANIFEST, _CONFIG],
        have={},
        on_progress=lambda _: host.connect(_METAINFO.info_hash, "127.0.0.1", seed.port),
        on_complete=lambda _digest, _path: None,
        patience=_PATIENT,
    )
    assert not result.stalled
    assert result.payload <= _SMALL * 1.02 + _SLACK
    assert not (folder / _LARGE_LAYER.layout_path).exists()


def test_a_host_serves_what_it_fetched_and_what_it_held(
    seed: Swarm, new_swarm: NewSwarm, tmp_path: Path
) -> None:
    """A third host gets all layers from the second one alone, when the seed is gone."""
    second = new_swarm()
    folder = _IMAGE.lay_out(tmp_path / "second", without=[_LARGE_LAYER])
    Fetching(second, folder, seed).run([_LARGE_LAYER])
    seed.close()
    folder = _IMAGE.lay_out(tmp_path / "third", without=_LAYERS)
    fetching = Fetching(new_swarm(), folder, second)
    result = fetching.run(_LAYERS)
    assert sorted(fetching.completed) == sorted(_LAYERS)
    assert result.payload >= _LARGE + _SMALL
    assert second.uploaded(_METAINFO.info_hash) >= _LARGE + _SMALL
    assert second.uploaded(b"x" * 20) == 0


def test_a_torrent_that_is_served_can_be_fetched_on(
    seed: Swarm, new_swarm: NewSwarm, tmp_path: Path
) -> None:
    """A later fetch for another layer gets it: what was wanted before is no limit."""
    host = new_swarm()
    folder = _IMAGE.lay_out(tmp_path / "host", without=_LAYERS)

    def fetch(wanted: Digest, held: Collection[Digest]) -> FetchResult:
        return host.fetch(
            _METAINFO,
            folder,
            wanted=[wanted],
            held=held,
            have={},
            on_progress=lambda _: host.connect(_METAINFO.info_hash, "127.0.0.1", seed.port),
            on_complete=lambda _digest, _path: None,
            patience=_PATIENT,
        )

    assert not fetch(_SMALL_LAYER, [_MANIFEST, _CONFIG]).stalled
    result = fetch(_LARGE_LAYER, [_MANIFEST, _CONFIG, _SMALL_LAYER])
    assert not result.stalled
    assert _LARGE <= result.payload <= _LARGE * 1.02 + _SLACK
    assert host.info_hashes() == [_METAINFO.info_hash]


def test_one_torrent_is_fetched_once_at_a_time(new_swarm: NewSwarm, tmp_path: Path) -> None:
    """A second fetch meanwhile is refused, and the first goes on undisturbed."""
    host = new_swarm()
    refused: list[str] = []

    def again(_progress: FetchProgress) -> bool:
        with pytest.raises(SwarmError, match="already") as caught:
            Fetching(host, tmp_path / "other", None).run(_LAYERS)
        refused.append(str(caught.value))
        assert host.info_hashes() == [_METAINFO.info_hash]
        return True

    folder = _IMAGE.lay_out(tmp_path / "host", without=_LAYERS)
    assert Fetching(host, folder, None, until=again).run(_LAYERS).stalled
    assert refused
    assert Fetching(host, folder, None, until=lambda _: True).run(_LAYERS).stalled


def test_what_libtorrent_cannot_read_is_a_swarm_error(new_swarm: NewSwarm, tmp_path: Path) -> None:
    """A torrent that libtorrent refuses is told as one error, whatever step it fails at."""
    broken = replace(_METAINFO, content=b"d4:infodee")
    host = new_swarm()
    with pytest.raises(SwarmError, match="refuses"):
        host.seed(broken, tmp_path)
    assert host.info_hashes() == []


def test_hosts_that_hold_different_layers_help_each_other(
    new_swarm: NewSwarm, tmp_path: Path
) -> None:
    """Without any seed, two hosts that lack one layer each both end with the whole image."""
    hosts = {_LARGE_LAYER: new_swarm(), _SMALL_LAYER: new_swarm()}
    both_in = threading.Barrier(2, timeout=_PATIENT)
    results: dict[Digest, FetchResult] = {}

    def fetch(lacking: Digest) -> None:
        folder = _IMAGE.lay_out(tmp_path / lacking.short, without=[lacking])
        swarm, (neighbour,) = (
            hosts[lacking],
            [host for key, host in hosts.items() if key != lacking],
        )
        fetching = Fetching(swarm, folder, neighbour)
        fetching.until = lambda _: len(fetching.reports) == 1 and both_in.wait() < 0
        results[lacking] = fetching.run([lacking])

    threads = [threading.Thread(target=fetch, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {digest: result.stalled for digest, result in results.items()} == dict.fromkeys(
        hosts, False
    )


def test_what_the_registry_gave_is_told_apart(new_swarm: NewSwarm, tmp_path: Path) -> None:
    """With blocks watched, bytes of each layer from a registry's seed are counted as that."""
    registry = new_swarm(is_registry=True)
    registry.seed(_METAINFO, _IMAGE.lay_out(tmp_path / "registry"))
    host, third = new_swarm(watch_blocks=True), new_swarm(watch_blocks=True)
    folder = _IMAGE.lay_out(tmp_path / "host", without=_LAYERS)
    result = Fetching(host, folder, registry).run(_LAYERS)
    assert (result.blocks[_LARGE_LAYER].registry, result.blocks[_LARGE_LAYER].hosts) == (_LARGE, 0)
    folder = _IMAGE.lay_out(tmp_path / "third", without=_LAYERS)
    result = Fetching(third, folder, host).run(_LAYERS)
    assert (result.blocks[_SMALL_LAYER].registry, result.blocks[_SMALL_LAYER].hosts) == (0, _SMALL)


def test_progress_tells_bytes_of_each_layer(new_swarm: NewSwarm, tmp_path: Path) -> None:
    """Reports never go back nor past a layer's size, and count the peers."""
    source = new_swarm(max_upload=6_000_000)
    source.seed(_METAINFO, _IMAGE.lay_out(tmp_path / "seed"))
    folder = _IMAGE.lay_out(tmp_path / "host", without=_LAYERS)
    fetching = Fetching(new_swarm(), folder, source)
    fetching.run(_LAYERS)
    done = [report.done[_LARGE_LAYER] for report in fetching.reports]
    assert done == sorted(done)
    assert done[-1] <= _LARGE
    assert any(0 < share_done < _LARGE for share_done in done)
    assert max(report.peers for report in fetching.reports) == 1


def test_a_corrupt_blob_of_a_seed_is_never_complete(new_swarm: NewSwarm, tmp_path: Path) -> None:
    """Wrong bytes under a trusted seed don't arrive as the blob: the fetch stalls instead."""
    rotten = new_swarm()
    folder = _IMAGE.lay_out(tmp_path / "seed")
    path = folder / _LARGE_LAYER.layout_path
    path.chmod(0o600)
    with path.open("r+b") as file:
        for at in range(0, _LARGE, PIECE_LENGTH):
            file.seek(at)
            file.write(b"rot")
    rotten.seed(_METAINFO, folder)
    folder = _IMAGE.lay_out(tmp_path / "host", without=[_LARGE_LAYER])
    fetching = Fetching(new_swarm(), folder, rotten)
    result = fetching.run([_LARGE_LAYER], patience=1.5)
    assert result.stalled
    assert result.payload > 0
    assert fetching.completed == []
    assert not any(result.pieces[_LARGE_LAYER])


def test_a_deleted_blob_of_a_seed_stalls_that_fetch(new_swarm: NewSwarm, tmp_path: Path) -> None:
    """A seed whose file is gone gives nothing of it; the host gives up after its patience."""
    source = new_swarm()
    folder = _IMAGE.lay_out(tmp_path / "seed")
    source.seed(_METAINFO, folder)
    (folder / _SMALL_LAYER.layout_path).unlink()
    folder = _IMAGE.lay_out(tmp_path / "host", without=[_SMALL_LAYER])
    fetching = Fetching(new_swarm(), folder, source)
    assert fetching.run([_SMALL_LAYER], patience=1.5).stalled
    assert fetching.completed == []


def test_without_a_peer_a_fetch_stalls_after_its_patience(
    new_swarm: NewSwarm, tmp_path: Path
) -> None:
    """No peer is no error: the fetch ends without the layer, and the torrent leaves."""
    host = new_swarm()
    folder = _IMAGE.lay_out(tmp_path / "host", without=_LAYERS)
    fetching = Fetching(host, folder, None)
    result = fetching.run(_LAYERS, patience=0.8)
    assert result.stalled
    assert result.payload == 0
    assert not any(any(pieces) for pieces in result.pieces.values())
    assert 0.8 <= fetching.seconds < 10
    assert host.info_hashes() == []


def test_a_cancelled_fetch_ends_at_once(new_swarm: NewSwarm, tmp_path: Path) -> None:
    """Cancelling doesn't wait for patience to run out."""
    host = new_swarm()
    folder = _IMAGE.lay_out(tmp_path / "host", without=_LAYERS)
    fetching = Fetching(host, folder, None, until=lambda _: True)
    assert fetching.run(_LAYERS, patience=600).stalled
    assert fetching.seconds < 30
    assert host.info_hashes() == []


def test_an_error_of_the_caller_ends_the_fetch(
    seed: Swarm, new_swarm: NewSwarm, tmp_path: Path
) -> None:
    """What on_complete raises comes out of fetch, and the torrent has left."""
    host = new_swarm()
    folder = _IMAGE.lay_out(tmp_path / "host", without=_LAYERS)

    def refuse(digest: Digest, _path: Path) -> None:
        raise LookupError(str(digest))

    with pytest.raises(LookupError):
        host.fetch(
            _METAINFO,
            folder,
            wanted=_LAYERS,
            held=[_MANIFEST, _CONFIG],
            have={},
            on_progress=lambda _: host.connect(_METAINFO.info_hash, "127.0.0.1", seed.port),
            on_complete=refuse,
            patience=_PATIENT,
        )
    assert host.info_hashes() == []


def test_an_interrupted_fetch_goes_on_where_it_was(
    seed: Swarm, new_swarm: NewSwarm, tmp_path: Path
) -> None:
    """What came before a cancel isn't fetched again: only the rest of the pieces moves."""
    folder = _IMAGE.lay_out(tmp_path / "host", without=[_LARGE_LAYER])
    slow = new_swarm(max_download=6_000_000)
    first = Fetching(slow, folder, seed, until=lambda report: report.payload > _LARGE // 3)
    assert first.run([_LARGE_LAYER]).stalled
    have = _have(folder, _LARGE_LAYER)
    on_disk = sum(have) * PIECE_LENGTH
    assert 0 < on_disk < _LARGE
    second = Fetching(new_swarm(), folder, seed)
    result = second.run([_LARGE_LAYER], have={_LARGE_LAYER: have})
    assert second.completed == [_LARGE_LAYER]
    missing = _LARGE - on_disk
    assert result.payload <= missing * 1.02 + _SLACK + PIECE_LENGTH


def test_a_host_that_expects_others_in_vain_fetches_all(
    seed: Swarm, new_swarm: NewSwarm, tmp_path: Path
) -> None:
    """It holds back for half a second at most."""
    folder = _IMAGE.lay_out(tmp_path / "host", without=_LAYERS)
    fetching = Fetching(new_swarm(), folder, seed)
    result = fetching.run(_LAYERS, expects_others=True)
    assert not result.stalled
    assert sorted(fetching.completed) == sorted(_LAYERS)
    before = [report.payload for report in fetching.reports[:2]]
    assert before[-1] <= 4 * PIECE_LENGTH


def test_what_is_whole_already_is_complete_without_a_peer(
    new_swarm: NewSwarm, tmp_path: Path
) -> None:
    """A layer whose pieces are all there is given out at once, and is served."""
    host = new_swarm()
    folder = _IMAGE.lay_out(tmp_path / "host")
    fetching = Fetching(host, folder, None)
    result = fetching.run([_LARGE_LAYER], have={_LARGE_LAYER: _have(folder, _LARGE_LAYER)})
    assert fetching.completed == [_LARGE_LAYER]
    assert (result.stalled, result.payload) == (False, 0)
    assert host.info_hashes() == [_METAINFO.info_hash]


def test_an_empty_layer_is_complete_without_a_peer(new_swarm: NewSwarm, tmp_path: Path) -> None:
    """A blob of no bytes has no pieces, so nothing of it is to come."""
    image = Sample(b"manifest", (b"config", b""))
    folder = image.lay_out(tmp_path)
    fetching = Fetching(new_swarm(), folder, None, metainfo=image.metainfo(), image=image)
    result = fetching.run([Digest.of(b"")])
    assert fetching.completed == [Digest.of(b"")]
    assert not result.stalled


@pytest.mark.parametrize("side", ["max_upload", "max_download"])
def test_a_limit_holds_on_loopback(new_swarm: NewSwarm, tmp_path: Path, side: str) -> None:
    """Limits are for peers on local addresses too: a layer takes its bytes over the limit."""
    limit = 3_000_000
    source = new_swarm(max_upload=limit) if side == "max_upload" else new_swarm()
    host = new_swarm(max_download=limit) if side == "max_download" else new_swarm()
    source.seed(_METAINFO, _IMAGE.lay_out(tmp_path / "seed"))
    folder = _IMAGE.lay_out(tmp_path / "host", without=[_LARGE_LAYER])
    fetching = Fetching(host, folder, source)
    assert not fetching.run([_LARGE_LAYER]).stalled
    assert fetching.seconds >= 0.8 * _LARGE / limit


def test_a_full_disk_is_an_error_and_nothing_hangs(
    seed: Swarm, new_swarm: NewSwarm, tmp_path: Path
) -> None:
    """ENOSPC comes out as OSError, the torrent leaves, and the peer can be closed."""
    host = new_swarm()
    with _tiny_disk(tmp_path / "disk", size=2_000_000) as disk:
        folder = _IMAGE.lay_out(disk, without=[_LARGE_LAYER])
        fetching = Fetching(host, folder, seed)
        with pytest.raises(OSError, match="space") as failed:
            fetching.run([_LARGE_LAYER])
        assert failed.value.errno == errno.ENOSPC
        assert fetching.completed == []
        assert host.info_hashes() == []
        host.close()


def test_seeding_twice_is_seeding_once(new_swarm: NewSwarm, tmp_path: Path) -> None:
    """Seeding what is seeded is a no-op."""
    swarm = new_swarm()
    folder = _IMAGE.lay_out(tmp_path)
    swarm.seed(_METAINFO, folder)
    swarm.seed(_METAINFO, folder)
    assert swarm.info_hashes() == [_METAINFO.info_hash]


def test_a_forgotten_torrent_is_gone_and_its_files_stay(
    seed: Swarm, new_swarm: NewSwarm, tmp_path: Path
) -> None:
    """After forget nobody is served, the files are all there, and seeding again works."""
    seed.forget(_METAINFO.info_hash)
    assert not seed.keep(_METAINFO.info_hash)
    assert seed.info_hashes() == []
    seed.forget(_METAINFO.info_hash)
    folder = tmp_path / "seed" / _METAINFO.name
    for digest in _IMAGE.digests:
        assert Digest.of_file(folder / digest.layout_path) == digest
    host = new_swarm()
    host_folder = _IMAGE.lay_out(tmp_path / "host", without=[_SMALL_LAYER])
    assert Fetching(host, host_folder, seed).run([_SMALL_LAYER], patience=1).stalled
    seed.seed(_METAINFO, folder)
    assert not Fetching(host, host_folder, seed).run([_SMALL_LAYER]).stalled


def test_a_torrent_is_idle_since_it_was_last_asked_for(seed: Swarm) -> None:
    """Idle time grows while nobody is there, and being asked for ends it."""
    info_hash = _METAINFO.info_hash
    until(lambda: seed.idle_seconds(info_hash) > 0.2)
    before = seed.idle_seconds(info_hash)
    assert seed.keep(info_hash)
    assert seed.idle_seconds(info_hash) < before
    assert not seed.keep(b"x" * 20)
    assert seed.idle_seconds(b"x" * 20) == 0


def test_a_torrent_with_a_peer_is_not_idle(
    seed: Swarm, new_swarm: NewSwarm, tmp_path: Path
) -> None:
    """A connected peer is as good as being asked for."""
    info_hash = _METAINFO.info_hash
    host = new_swarm(max_download=1_000_000)
    idle: list[float] = []

    def look(progress: FetchProgress) -> bool:
        if progress.payload:
            idle.append(seed.idle_seconds(info_hash))
        return len(idle) > 3

    folder = _IMAGE.lay_out(tmp_path / "host", without=[_LARGE_LAYER])
    Fetching(host, folder, seed, until=look).run([_LARGE_LAYER])
    assert max(idle) < 0.1


def test_a_port_in_use_is_an_error() -> None:
    """A peer listens on the port it was given or not at all."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SwarmError, match=str(port)):
            Swarm(SessionOptions(listen=f"127.0.0.1:{port}"))


def test_an_address_of_another_machine_is_an_error() -> None:
    """A peer that can't listen says so at once."""
    with pytest.raises(SwarmError, match="listen"):
        Swarm(SessionOptions(listen="192.0.2.1:6999"))


def test_a_port_can_be_taken_again_at_once(new_swarm: NewSwarm, tmp_path: Path) -> None:
    """A registry that restarts with peers connected gets its port back."""
    source = new_swarm()
    source.seed(_METAINFO, _IMAGE.lay_out(tmp_path / "seed"))
    folder = _IMAGE.lay_out(tmp_path / "host", without=[_SMALL_LAYER])
    assert not Fetching(new_swarm(), folder, source).run([_SMALL_LAYER]).stalled
    source.close()
    with Swarm(SessionOptions(listen=f"127.0.0.1:{source.port}")) as again:
        assert again.port == source.port


def test_closing_twice_is_closing_once(new_swarm: NewSwarm) -> None:
    """A peer that is closed stays closed."""
    swarm = new_swarm()
    swarm.close()
    swarm.close()


def test_closing_ends_a_fetch(seed: Swarm, new_swarm: NewSwarm, tmp_path: Path) -> None:
    """Closing a peer that fetches is an error of docket's for the fetch; so is fetching after."""
    host = new_swarm(max_download=1_000_000)
    folder = _IMAGE.lay_out(tmp_path / "host", without=[_LARGE_LAYER])

    def close(progress: FetchProgress) -> bool:
        if progress.payload:
            host.close()
        return False

    for doing in (close, lambda _: False):
        with pytest.raises(SwarmError, match="closed"):
            Fetching(host, folder, seed, until=doing).run([_LARGE_LAYER])


def test_closing_ends_a_fetch_that_waits(new_swarm: NewSwarm, tmp_path: Path) -> None:
    """Closing from another thread ends a fetch that nobody gives anything, at once."""
    host = new_swarm()
    folder = _IMAGE.lay_out(tmp_path / "host", without=[_LARGE_LAYER])
    closing = threading.Thread(target=host.close)

    def begin(_progress: FetchProgress) -> bool:
        if not closing.ident:
            closing.start()
        return False

    fetching = Fetching(host, folder, None, until=begin)
    with pytest.raises(SwarmError, match="closed"):
        fetching.run([_LARGE_LAYER], patience=600)
    assert fetching.seconds < _PATIENT
    closing.join()


def _identity(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_mode, status.st_nlink


def _have(folder: Path, digest: Digest) -> list[bool]:
    """The pieces of a blob that its file in *folder* has."""
    (file,) = [file for file in _METAINFO.files if file.digest == digest]
    return have_pieces(folder / file.path, file.size, _METAINFO.hashes(file), PIECE_LENGTH)


@contextmanager
def _tiny_disk(folder: Path, *, size: int) -> Iterator[Path]:
    """A file system of *size* bytes in memory."""
    need("mount", "umount")
    need_root()
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        missing("mounts (run the tests where tmpfs can be mounted)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
