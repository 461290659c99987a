"""Which engine is used: what the docker command would use, then what else there is."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from docket.engine_address import engine_address, usual_sockets
from docket.errors import EngineUnreachable, summary
from tests.support.processes import short_folder
from tests.support.requirements import need


@contextmanager
def listening(path: Path) -> Iterator[None]:
    """A socket file that takes connections."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield
    path.unlink()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with short_folder() as path:
        yield path


def write_context(config: Path, name: str, meta: object, *, tls: tuple[str, ...] = ()) -> None:
    """A context as ``docker context create`` writes it."""
    key = sha256(name.encode()).hexdigest()
    path = config / "contexts" / "meta" / key / "meta.json"
    path.parent.mkdir(parents=True)
    path.write_text(meta if isinstance(meta, str) else json.dumps(meta))
    for file in tls:
        stored = config / "contexts" / "tls" / key / "docker" / file
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text("PEM")


def of_host(host: str, *, skip: bool = False) -> dict[str, object]:
    """The meta.json of a context."""
    endpoint = {"Host": host, "SkipTLSVerify": skip}
    return {"Name": "x", "Metadata": {}, "Endpoints": {"docker": endpoint}}


def test_variables_and_contexts_in_dockers_order(folder: Path) -> None:
    """DOCKER_HOST, then DOCKER_CONTEXT, then the context that ``docker context use`` set."""
    for name in ("work", "test"):
        write_context(folder, name, of_host(f"unix:///{name}.sock"))
    (folder / "config.json").write_text('{"auths": {}, "currentContext": "work"}')
    variables = {"DOCKER_CONFIG": str(folder)}
    assert engine_address(variables).url == "unix:///work.sock"
    assert engine_address({**variables, "DOCKER_CONTEXT": ""}).url == "unix:///work.sock"
    variables["DOCKER_CONTEXT"] = "test"
    assert engine_address(variables).url == "unix:///test.sock"
    assert engine_address({**variables, "DOCKER_HOST": ""}).url == "unix:///test.sock"
    variables["DOCKER_HOST"] = "tcp://127.0.0.1:1"
    assert engine_address(variables).url == "tcp://127.0.0.1:1"


def test_the_folder_of_a_user(folder: Path) -> None:
    """Without DOCKER_CONFIG it is ~/.docker."""
    write_context(folder / ".docker", "work", of_host("tcp://10.1.2.3:2376"), tls=("ca.pem",))
    (folder / ".docker" / "config.json").write_text('{"currentContext": "work"}')
    address = engine_address({"HOME": str(folder)})
    assert address.url == "tcp://10.1.2.3:2376"
    assert address.tls
    assert address.tls.ca
    assert address.tls.ca.read_text() == "PEM"
    assert (address.tls.certificate, address.tls.key, address.tls.verify) == (None, None, True)


def test_a_context_with_a_client_certificate(folder: Path) -> None:
    """All three files, and whether the server's certificate counts."""
    files = ("ca.pem", "cert.pem", "key.pem")
    write_context(folder, "x", of_host("tcp://h:2376", skip=True), tls=files)
    tls = engine_address({"DOCKER_CONFIG": str(folder), "DOCKER_CONTEXT": "x"}).tls
    assert tls
    assert tls.certificate
    assert tls.key
    assert not tls.verify


@pytest.mark.parametrize(
    "meta",
    ["", "[]", "{", '{"Endpoints": 5}', '{"Endpoints": {"docker": {"Host": 5}}}', "[" * 99999],
)
def test_a_context_that_is_broken_or_missing(folder: Path, meta: str) -> None:
    """It is one line: another engine than the one that was named is never taken."""
    write_context(folder, "x", meta)
    for name in ("x", "nosuch", "a\udc80b", "n" * 5000):
        with pytest.raises(EngineUnreachable, match="the docker context") as caught:
            engine_address({"DOCKER_CONFIG": str(folder), "DOCKER_CONTEXT": name})
        assert len(summary(caught.value)) < 400


@pytest.mark.parametrize("config", ["", "{", "[]", '{"currentContext": 5}', "default"])
def test_a_configuration_that_is_broken(folder: Path, config: str) -> None:
    """As for the docker command it counts as none; so does the context "default"."""
    text = '{"currentContext": "default"}' if config == "default" else config
    (folder / "config.json").write_text(text)
    with listening(folder / "docker.sock"):
        variables = {"DOCKER_CONFIG": str(folder), "XDG_RUNTIME_DIR": str(folder)}
        assert engine_address(variables).url in (
            "unix:///var/run/docker.sock",
            f"unix://{folder}/docker.sock",
        )


def test_the_first_usual_socket_that_answers_is_taken(folder: Path) -> None:
    """Docker's, a rootless Docker's, Docker Desktop's, then podman's; a dead socket is skipped."""
    variables = {"XDG_RUNTIME_DIR": str(folder / "run"), "HOME": str(folder)}
    paths = [Path(path) for path in usual_sockets(variables)]
    assert paths[0] == Path("/var/run/docker.sock")
    assert paths[-1] == Path("/run/podman/podman.sock")
    ours = [path for path in paths if path.is_relative_to(folder)]
    assert [str(path.relative_to(folder)) for path in ours] == [
        *("run/docker.sock", ".docker/run/docker.sock", "run/podman/podman.sock")
    ]
    if paths[0].exists():
        pytest.skip("Docker itself is on this machine, and comes first")
    for path in reversed(ours):
        path.parent.mkdir(parents=True, exist_ok=True)
        with listening(path):
            assert engine_address(variables).url == f"unix://{path}"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))


def test_an_error_lists_what_was_tried(folder: Path) -> None:
    """Each path with its reason, in one line."""
    variables = {"XDG_RUNTIME_DIR": str(folder), "HOME": str(folder)}
    if any(Path(path).exists() for path in usual_sockets(variables)):
        pytest.skip("an engine is on this machine")
    with pytest.raises(EngineUnreachable) as caught:
        engine_address(variables)
    for path in usual_sockets(variables):
        assert f"{path}: No such file or directory" in summary(caught.value)


def test_contexts_of_the_docker_command(folder: Path) -> None:
    """What ``docker context create`` and ``use`` write is read."""
    need("docker")
    docker = shutil.which("docker")
    assert docker
    variables = {"DOCKER_CONFIG": str(folder), "HOME": str(folder)}
    for argv in (
        ["create", "far", "--docker", "host=tcp://127.0.0.1:9"],
        ["use", "far"],
    ):
        subprocess.run([docker, "context", *argv], env=variables, check=True, capture_output=True)
    assert engine_address(variables).url == "tcp://127.0.0.1:9"
