"""Damaged index files: refused with the command that helps, never taken for an empty store."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from docket.errors import IndexUnreadable, StoreFormat
from docket.store import Store, rebuild_index
from docket.store.index.file_check import damage_in
from tests.store.samples import assert_readable, image, open_store, push

IMAGES = [image("base", f"app {number}") for number in range(6)]
PAGE = 4096


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store of six images, with pages that were used and are free now."""
    location = tmp_path_factory.mktemp("sound") / "store"
    with open_store(location) as store:
        for number, pushed in enumerate(IMAGES):
            push(store, f"app{number % 2}", pushed, tag=f"{number}")
        for number in range(300):
            store.blobs.put(b"blob %d" % number, repository="other")
        store.maintenance.gc(grace=0)
    return location


@pytest.fixture
def location(sound: Path, tmp_path: Path) -> Path:
    """A copy of that store."""
    return Path(shutil.copytree(sound, tmp_path / "store"))


def assert_whole(store: Store) -> None:
    """All images are there."""
    for number in range(len(IMAGES)):
        assert_readable(store, f"app{number % 2}", f"{number}")
    assert store.maintenance.fsck().findings == []


def contents(folder: Path) -> dict[str, bytes]:
    """The files of *folder* by name, without the table of readers."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock.mdb"}


def refused(location: Path) -> None:
    """The store doesn't open and nothing changes; a rebuild brings all of it back."""
    before = contents(location / "index"), contents(location / "journal")
    with pytest.raises(IndexUnreadable, match=f"fsck --local --rebuild-index -l {location}"):
        open_store(location)
    assert (contents(location / "index"), contents(location / "journal")) == before
    rebuild_index(location, owner="test")
    assert contents(location / "index.old") == before[0]
    with open_store(location) as store:
        assert_whole(store)


def _page(number: int, content: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[: number * PAGE] + content + data[number * PAGE + len(content) :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda _data: b"",
        lambda data: data[:1],
        lambda data: data[:100],
        lambda data: data[:PAGE],
        lambda data: data[: 2 * PAGE],
        lambda data: data[: 7 * PAGE + 5],
        lambda data: bytes(len(data)),
        lambda data: b"garbage!" * (len(data) // 8),
        _page(0, bytes(PAGE)),
        _page(1, bytes(PAGE)),
        _page(0, b"\xff" * 200),
        _page(1, b"\xff" * 200),
    ],
    ids=[
        *("empty", "one byte", "half a page", "one page", "no tree", "cut in a page"),
        *("zeros", "garbage", "first page zero", "second page zero", "no magic", "no magic after"),
    ],
)
def test_a_damaged_file(location: Path, damage: Callable[[bytes], bytes]) -> None:
    """Opening fails, with the command; the journal stays as it is and brings everything back."""
    path = location / "index" / "data.mdb"
    path.write_bytes(damage(path.read_bytes()))
    refused(location)


def test_every_page_that_is_in_use(location: Path) -> None:
    """A page in use that is zeros or garbage is found, and a free one does no harm."""
    path = location / "index" / "data.mdb"
    whole = path.read_bytes()
    noise = random.Random(1)
    harmful = 0
    for number in range(2, 80):
        for content in (bytes(PAGE), noise.randbytes(PAGE)):
            path.write_bytes(_page(number, content)(whole))
            harmful += bool(damage_in(path))
    path.write_bytes(whole)
    assert damage_in(path) == ""
    assert harmful > 20


USE = """
import sys, shutil, random, contextlib
from pathlib import Path
from docket.errors import DocketError
from tests.store.samples import image, open_store, push
sound, place, noise = Path(sys.argv[1]), Path(sys.argv[2]), random.Random(int(sys.argv[3]))
refused = 0
for number in range(25):
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sound, place)
    with (place / "index" / "data.mdb").open("rb+") as file:
        for _ in range(noise.choice([1, 5, 50])):
            at = noise.randrange(300_000)
            file.seek(at)
            byte = file.read(1)[0] ^ 1 << noise.randrange(8)
            file.seek(at)
            file.write(bytes([byte]))
    try:
        with open_store(place) as store:
            for tag in ("0", "1", "2"):
                with contextlib.suppress(DocketError):
                    store.manifests.get(f"app{int(tag) % 2}", tag)
            with contextlib.suppress(DocketError):
                push(store, "new", image("new"))
            with contextlib.suppress(DocketError):
                store.maintenance.gc(grace=0)
            with contextlib.suppress(DocketError):
                store.maintenance.fsck()
    except DocketError:
        refused += 1
print(refused)
"""


@pytest.mark.parametrize("seed", range(2))
def test_flipped_bits(sound: Path, tmp_path: Path, seed: int) -> None:
    """Whatever bits of the file are flipped, the store works or is refused: nothing crashes."""
    arguments = [sys.executable, "-c", USE, str(sound), str(tmp_path / "store"), str(seed)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_the_lock_file_of_lmdb_is_no_data(location: Path, damage: bytes | None) -> None:
    """LMDB's table of readers is made again."""
    path = location / "index" / "lock.mdb"
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    with open_store(location) as store:
        assert_whole(store)


def test_an_index_that_is_older_than_its_journal(location: Path) -> None:
    """An index that came from a copy replaces no newer journal."""
    shutil.copytree(location / "index", location / "copy")
    with open_store(location) as store:
        store._index.renew_journal()
    shutil.rmtree(location / "index")
    (location / "copy").rename(location / "index")
    refused(location)


DAMAGES = ["", "garbage", "{}", '{"format": 1}', "[1]", "null", "[" * 100_000, None]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda text: str(text)[:9])
def test_a_damaged_version_file(location: Path, damage: str | None) -> None:
    """VERSION isn't guessed: the error names the command, which writes it again."""
    path = location / "VERSION"
    path.unlink()
    if damage is not None:
        path.write_text(damage)
    with pytest.raises(StoreFormat, match=f"--rebuild-index -l {location}"):
        open_store(location)
    rebuild_index(location, owner="test")
    with open_store(location) as store:
        assert_whole(store)


def test_blobs_alone_are_no_new_store(location: Path) -> None:
    """Where index, journal and VERSION are lost, gc would take all blobs for garbage."""
    for name in ("index", "journal"):
        shutil.rmtree(location / name)
    before = sorted((location / "blobs").rglob("*"))
    with pytest.raises(StoreFormat):
        open_store(location)
    (location / "VERSION").unlink()
    with pytest.raises(StoreFormat):
        open_store(location)
    assert sorted((location / "blobs").rglob("*")) == before


LIMITED = """
import resource, sys
from pathlib import Path
from tests.store.samples import image, open_store, push
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
with open_store(Path(sys.argv[1])) as store:
    push(store, "new", image("new"))
    print(store._index._env.info()["map_size"])
"""


def test_little_address_space(location: Path) -> None:
    """The index takes a smaller map where a limit forbids 1 TiB."""
    arguments = [sys.executable, "-c", LIMITED, str(location)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= 1 << 28
