"""Real engines: what docket loads and saves, and what it may leave out."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from docket.archive import load_archive, load_manifest, read
from docket.engine import Engine
from docket.errors import (
    DigestMismatch,
    EngineError,
    EngineImageUnknown,
    EngineUnreachable,
    summary,
)
from docket.oci.digest import Digest
from docket.oci.manifest import Platform
from tests.support import engines
from tests.support.images import TinyImage, image_of, layer_tar, tiny_image
from tests.support.newer_docker import newer_dockerd
from tests.support.processes import short_folder

KINDS = (
    "docker",
    "podman",
    "docker 26, containerd store",
    "docker 28, graph driver",
    "docker 28, containerd store",
)
SUITES = {"docker 26": "trixie", "docker 28": "sid"}


def started(kind: str, root: Path) -> AbstractContextManager[engines.Engine]:
    """The engine of *kind*, with its images below *root*."""
    if kind == "docker":
        return engines.dockerd(root, storage_driver="vfs")
    if kind == "podman":
        return engines.podman_service(root)
    suite = SUITES[kind.partition(",")[0]]
    return newer_dockerd(root, containerd_store="containerd" in kind, suite=suite)


@pytest.fixture(scope="module", params=KINDS)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each real engine, started once."""
    with short_folder() as folder:
        root = folder / "engine"
        root.mkdir()
        with (
            started(request.param, root) as running,
            closing(Engine.connect(running.host)) as connected,
        ):
            yield connected


def blocks_of(image: TinyImage, *, leave_out: int = 0) -> Iterator[bytes]:
    """The archive that docket writes of *image*."""
    return load_archive(image.config, image.load_layers(leave_out=leave_out), [image.name])


def loaded(*images: TinyImage) -> Mapping[Digest, Sequence[Digest]]:
    """What docket knows of images that it loaded."""
    return {
        Digest.of(load_manifest(image.config, image.load_layers())): image.diff_ids
        for image in images
    }


def test_an_image_without_layers(engine: Engine) -> None:
    """An image of nothing but its config is loaded, and known by its name."""
    image = image_of([], "empty:1.0")
    engine.load(blocks_of(image))
    assert engine.image("empty:1.0").diff_ids == ()


def test_an_image_goes_round(engine: Engine, tmp_path: Path) -> None:
    """load, save, read, and load with what is held left out: the same image with the same id."""
    base = [layer_tar("round 0"), layer_tar("round 1")]
    image = image_of([*base, layer_tar("round 2"), base[0]], "round:1.0")
    engine.load(blocks_of(image))
    before = engine.image("round:1.0")
    assert before.diff_ids == image.diff_ids
    assert before.config == (None if engine.is_containerd_store else Digest.of(image.config))
    with engine.save("round:1.0") as stream:
        archived = read(stream, spool=tmp_path, name="round:1.0")
    assert archived.config == image.config
    assert tuple(layer.diff_id for layer in archived.layers) == image.diff_ids
    whole = engine.held_prefix(image.diff_ids, lambda: loaded(image))
    assert whole == len(image.layers)
    engine.load(blocks_of(image, leave_out=whole))
    assert engine.image("round:1.0") == before


def test_a_release_is_loaded_without_its_base(engine: Engine, tmp_path: Path) -> None:
    """Only the layers above the held prefix are in the archive; saving gives all of them."""
    base = [layer_tar("release 0"), layer_tar("release 1")]
    first = image_of([*base, layer_tar("old")], "release:1.0")
    second = image_of([*base, layer_tar("new")], "release:2.0")
    assert engine.held_prefix(first.diff_ids, dict) == 0
    engine.load(blocks_of(first))
    prefix = engine.held_prefix(second.diff_ids, lambda: loaded(first))
    assert prefix == 2
    engine.load(blocks_of(second, leave_out=prefix))
    assert engine.image("release:2.0").diff_ids == second.diff_ids
    with engine.save("release:2.0") as stream:
        image = read(stream, spool=tmp_path)
    for layer, content in zip(image.layers, second.layers, strict=True):
        with layer.open_plain() as plain:
            assert plain.read() == content


def test_a_layer_elsewhere_in_the_chain_is_not_held(engine: Engine) -> None:
    """Only what an image begins with counts."""
    image = tiny_image("chain", 3)
    engine.load(blocks_of(image))
    turned = image.diff_ids[::-1]
    assert engine.held_prefix(turned, lambda: loaded(image)) == 0
    assert engine.held_prefix(image.diff_ids[1:], lambda: loaded(image)) == 0
    assert engine.held_prefix((), lambda: loaded(image)) == 0


def test_the_containerd_store_is_trusted_only_with_what_docket_loaded(engine: Engine) -> None:
    """There an image that docket doesn't know is no reason to leave out a layer."""
    image = tiny_image("stranger", 2)
    engine.load(blocks_of(image))
    expected = 0 if engine.is_containerd_store else 2
    assert engine.held_prefix(image.diff_ids, dict) == expected


def test_an_unknown_image_is_named(engine: Engine) -> None:
    """The error is docket's own, in one line with the name."""
    with pytest.raises(EngineImageUnknown, match=r"nobody:1\.0"):
        engine.image("nobody:1.0")
    with pytest.raises(EngineError), engine.save("nobody:1.0") as stream:
        stream.read()


def test_the_error_of_the_blocks_goes_through(engine: Engine) -> None:
    """A layer that turns out false ends the load as itself; the engine hasn't the image."""
    image = tiny_image("false")
    layers = image.load_layers()
    false = [layers[0], type(layers[1])(layers[1].diff_id, layers[1].size, layers[0].open)]
    with pytest.raises(DigestMismatch):
        engine.load(load_archive(image.config, false, [image.name]))
    with pytest.raises(EngineImageUnknown):
        engine.image(image.name)

    def broken() -> Iterator[bytes]:
        yield next(blocks_of(image))
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        engine.load(broken())


def test_the_engine_says_why_it_refuses(engine: Engine) -> None:
    """What is no image is an error in the engine's words, and the connection works on."""
    with pytest.raises(EngineError, match="refuses"):
        engine.load(iter([b"this is no archive" * 1000]))
    image = tiny_image("after")
    engine.load(blocks_of(image))
    assert engine.image(image.name).diff_ids == image.diff_ids


def test_a_missing_layer_is_an_error(engine: Engine, tmp_path: Path) -> None:
    """An archive that leaves out what the engine lacks is refused, and never trusted later.

    The containerd store keeps a broken image: Docker 26 hides it, Docker 28 shows no layers of it.
    A whole archive mends it.
    """
    image = tiny_image("lacking", 2)
    with pytest.raises(EngineError):
        engine.load(blocks_of(image, leave_out=1))
    assert engine.held_prefix(image.diff_ids, lambda: loaded(image)) == 0
    engine.load(blocks_of(image))
    assert engine.held_prefix(image.diff_ids, lambda: loaded(image)) == 2
    with engine.save(image.name) as stream:
        assert read(stream, spool=tmp_path).config == image.config


def test_other_images_are_whole_too(engine: Engine) -> None:
    """An image for another platform, one without layers, one without a name: each loads."""
    foreign = tiny_image("foreign", platform=Platform("linux", "s390x"))
    engine.load(blocks_of(foreign))
    assert engine.image(foreign.name).diff_ids == foreign.diff_ids
    nameless = tiny_image("nameless")
    engine.load(load_archive(nameless.config, nameless.load_layers(), []))
    assert engine.held_prefix(nameless.diff_ids, lambda: loaded(nameless)) == 2


@pytest.mark.parametrize(
    "engine", [engine_kind for engine_kind in KINDS if "," in engine_kind], indirect=True
)
def test_docker_writes_the_manifest_that_docket_writes(engine: Engine) -> None:
    """Docker since 25 saves an image under the digest that docket's own archive gives it."""
    image = tiny_image("manifest", 3)
    engine.load(blocks_of(image))
    with engine.save(image.name) as stream, tarfile.open(fileobj=io.BytesIO(stream.read())) as tar:
        names = tar.getnames()
    ours = load_manifest(image.config, image.load_layers())
    assert Digest.of(ours).layout_path in names


def test_a_base_outlives_the_image_that_brought_it(engine: Engine, tmp_path: Path) -> None:
    """A layer that was left out stays when the image it came with is removed."""
    base = [layer_tar("outlive 0"), layer_tar("outlive 1")]
    first = image_of([*base, layer_tar("outlive old")], "outlive:1.0")
    second = image_of([*base, layer_tar("outlive new")], "outlive:2.0")
    engine.load(blocks_of(first))
    engine.load(blocks_of(second, leave_out=2))
    engine._client.remove_image("outlive:1.0", force=True)
    with engine.save("outlive:2.0") as stream:
        image = read(stream, spool=tmp_path)
    assert tuple(layer.diff_id for layer in image.layers) == second.diff_ids


def test_a_save_may_be_given_up(engine: Engine) -> None:
    """Reading a part of an archive and closing leaves nothing open."""
    image = image_of([layer_tar("given up", size=8_000_000)], "up:1.0")
    engine.load(blocks_of(image))
    with engine.save("up:1.0") as stream:
        assert stream.read(1024)
    assert engine.image("up:1.0").diff_ids == image.diff_ids


@contextmanager
def answering(answers: dict[str, bytes], *, name: str = "s") -> Iterator[str]:
    """The host of a false engine that gives these answers, by the end of the request's path."""
    with short_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=_answer_all, args=(listener, answers))
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _answer_all(listener: socket.socket, answers: dict[str, bytes]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, connection.makefile("rb") as stream, suppress(OSError):
            request = stream.readline().split()
            if not request:
                continue  # only a look whether somebody listens
            path = request[1].decode()
            headers = b"".join(iter(stream.readline, b"\r\n"))
            while b"chunked" in headers and stream.readline() != b"0\r\n":
                pass
            connection.sendall(next(a for end, a in answers.items() if path.endswith(end)))


def answer(content: Any, status: str = "200 OK") -> bytes:
    """A chunked HTTP answer in JSON."""
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    return head.encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


FALSE = {"/version": answer({"ApiVersion": "1.41"}), "/info": answer({"DriverStatus": None})}


@pytest.mark.parametrize(
    "said",
    [
        answer({"errorDetail": {"message": "no space"}, "error": "no space"}),
        answer({"cause": "x", "message": "no space", "response": 500}, "500 Internal Server Error"),
    ],
    ids=["in a good answer", "in a chunked bad answer"],
)
def test_errors_inside_an_answer_are_errors(said: bytes) -> None:
    """An error may come in the lines of an answer, whatever its status."""
    with (
        answering({**FALSE, "/load": said}) as host,
        closing(Engine.connect(host)) as engine,
        pytest.raises(EngineError, match="no space"),
    ):
        engine.load(iter([b"x\n"]))


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (answer({"Architecture": "", "RootFS": {}}), "lacks some of its layers"),
        (answer({"message": "no such image"}, "404 Not Found"), "lacks some of its layers"),
        (answer({"Architecture": "amd64", "RootFS": {}}), ""),
    ],
    ids=["broken", "gone", "without layers"],
)
def test_a_silently_broken_image_is_an_error(shown: bytes, why: str) -> None:
    """The containerd store's word that an image is loaded is checked."""
    store = {"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}
    answers = {
        **FALSE,
        "/info": answer(store),
        "/load": answer({"stream": "Loaded image: a:1\n"}),
        "/images/a:1/json": shown,
    }
    with answering(answers) as host, closing(Engine.connect(host)) as engine:
        expected = pytest.raises(EngineError, match=why) if why else nullcontext()
        with expected:
            engine.load(iter([b"x\n"]))


def test_an_answer_that_breaks_off_is_an_error() -> None:
    """A save that ends early is never taken for a whole archive."""
    cut = answer({"a": "b" * 1000})[:-200]
    with (
        answering({**FALSE, "/get": cut}) as host,
        closing(Engine.connect(host)) as engine,
        pytest.raises(EngineError),
        engine.save("a:1") as stream,
    ):
        stream.read()


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("unix:///nowhere/docker.sock", "No such file or directory"),
        ("tcp://127.0.0.1:1", "Connection refused"),
        ("tcp://127.0.0.1", "port is required"),
        ("tcp://[", "Invalid IPv6 URL"),
        ("nonsense://x", "protocol"),
    ],
)
def test_no_engine_is_one_line(host: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an engine the error says where none answers; DOCKER_HOST says where to look."""
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(EngineUnreachable) as caught:
        Engine.connect()
    assert host in summary(caught.value)
    assert why in str(caught.value)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


def test_tls_without_certificates_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With DOCKER_TLS_VERIFY and no certificates docket doesn't go on in the clear."""
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with pytest.raises(EngineUnreachable, match="certificate"):
        Engine.connect("tcp://127.0.0.1:1")


def test_an_image_that_the_engine_has_behind_a_registry() -> None:
    """The error says which command gives the image the name that is pushed."""
    tags = ["reg:5000/team/app:1.0", "reg:5000/my/team/app:1.0", "x/team/app:1.0", "other:1"]
    missing = answer({"message": "No such image"}, "404 Not Found")
    images = {"all=0": answer([{"Id": "x", "RepoTags": tags}, {"Id": "y"}])}
    with (
        answering({**FALSE, **images, "/team/app:1.0/json": missing}) as host,
        closing(Engine.connect(host)) as engine,
        pytest.raises(EngineImageUnknown) as caught,
    ):
        engine.image("team/app:1.0")
    assert caught.value.names_elsewhere == ["reg:5000/team/app:1.0"]
    assert "docker tag reg:5000/team/app:1.0 team/app:1.0" in str(caught.value)
