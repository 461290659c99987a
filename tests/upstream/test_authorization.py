"""Credentials for upstreams: Basic, tokens, and the file that they are in."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.api.http import Registry
from tests.support.commands import DOCKET
from tests.support.http_servers import Handler
from tests.support.images import image_of, layer_tar
from tests.support.processes import answers, free_port, started
from tests.support.servers import docker_registry
from tests.upstream.conftest import Start, Upstream, pulled
from tests.upstream.stand_in import StandIn, upstream_of

APP = image_of([layer_tar("base")], "app:1.0")
NAME = "ghcr.io/acme/app"
BASIC = base64.b64encode(b"robot:s3cret-word").decode()


def auth_file(folder: Path, *, name: str = "ghcr.io", mode: int = 0o600) -> Path:
    """A docker config.json with the robot's password."""
    path = folder / "config.json"
    path.write_text(json.dumps({"auths": {name: {"auth": BASIC}}, "credsStore": "none"}))
    path.chmod(mode)
    return path


@contextmanager
def asking_for_tokens(*, anonymous: bool, expires_in: int = 300) -> Iterator[StandIn]:
    """An upstream with Docker's token flow; *anonymous* clients get tokens too, or don't."""
    with upstream_of(APP) as upstream:
        tokens: list[str] = []

        def guard(handler: Handler) -> bool:
            url = urlsplit(handler.path)
            if url.path == "/token":
                query = parse_qs(url.query)
                assert query["service"] == ["test"]
                assert query["scope"] == ["repository:acme/app:pull"]
                if not anonymous and handler.headers.get("Authorization") != f"Basic {BASIC}":
                    handler.respond(401, b"{}")
                    return True
                tokens.append(f"token-{len(tokens)}")
                body = json.dumps({"token": tokens[-1], "expires_in": expires_in}).encode()
                handler.respond(200, body)
                return True
            if handler.headers.get("Authorization") == f"Bearer {tokens[-1] if tokens else ''}":
                return False
            challenge = (
                f'Bearer realm="{upstream.url}/token",service="test",'
                'scope="repository:acme/app:pull"'
            )
            handler.respond(401, b"{}", {"WWW-Authenticate": challenge})
            return True

        upstream.intercept.append(guard)
        yield upstream


def test_anonymous_tokens_are_fetched_once(docket: Start) -> None:
    """As Docker Hub wants it; a token is good for the whole image."""
    with asking_for_tokens(anonymous=True) as upstream, docket(upstream.url) as registry:
        assert pulled(registry, NAME, "1.0")
        assert upstream.count("/token") == 1


def test_credentials_go_to_the_token_server_and_into_no_log(docket: Start, tmp_path: Path) -> None:
    """Without them the image is denied, and the message says what to look at."""
    with asking_for_tokens(anonymous=False) as upstream:
        with docket(upstream.url, log_has="ghcr.io") as registry:
            assert_denied(registry)
        options = ("--upstream-auth", str(auth_file(tmp_path)))
        with docket(upstream.url, *options) as registry:
            assert pulled(registry, NAME, "1.0")
        basic = [r for r in upstream.server.requests if BASIC in r.headers.get("Authorization", "")]
        assert {urlsplit(request.path).path for request in basic} == {"/token"}
    logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert BASIC not in logs
    assert "s3cret-word" not in logs


def assert_denied(registry: Registry) -> None:
    """The image is 403, with a reason."""
    answer = registry.ask("GET", f"/v2/{NAME}/manifests/1.0")
    assert answer.refused(403, "DENIED")
    assert "--upstream-auth" in answer.json["errors"][0]["message"]


def test_basic_credentials_are_sent_when_they_are_asked_for(docket: Start, tmp_path: Path) -> None:
    """A registry with htpasswd alone; a wrong password is a clear refusal."""
    with upstream_of(APP) as upstream:

        def guard(handler: Handler) -> bool:
            if handler.headers.get("Authorization") == f"Basic {BASIC}":
                return False
            handler.respond(401, b"{}", {"WWW-Authenticate": 'Basic realm="test"'})
            return True

        upstream.intercept.append(guard)
        options = ("--upstream-auth", str(auth_file(tmp_path)))
        with docket(upstream.url, *options) as registry:
            assert pulled(registry, NAME, "1.0")
        other = ("--upstream-auth", str(auth_file(tmp_path, name="quay.io")))
        with docket(upstream.url, *other, "--upstream-ttl", "0", log_has="served") as registry:
            answer = registry.ask("GET", f"/v2/{NAME}/manifests/1.0")
            assert answer.status == 200  # it is here
            assert "denied" in answer.headers["Warning"]


def test_debians_registry_with_htpasswd_is_pulled_from(docket: Start, tmp_path: Path) -> None:
    """As ``docker login`` would: user and password of a config.json."""
    folder = tmp_path / "upstream"
    with docker_registry(folder) as server:
        Upstream(server.url).push("acme/app", "1.0", APP)
    password_file = tmp_path / "htpasswd"
    # bcrypt of "secret"
    password_file.write_text("robot:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n")
    port = free_port()
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder)}},
        "auth": {"htpasswd": {"realm": "test", "path": str(password_file)}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (tmp_path / "guarded.yml").write_text(json.dumps(settings))
    file = tmp_path / "config.json"
    plain = {"auths": {"ghcr.io": {"username": "robot", "password": "secret"}}}
    file.write_text(json.dumps(plain))
    file.chmod(0o600)
    guarded = started(
        ["docker-registry", "serve", tmp_path / "guarded.yml"],
        log=tmp_path / "guarded.txt",
        ready=lambda: answers("127.0.0.1", port),
    )
    with guarded, docket(f"http://127.0.0.1:{port}", "--upstream-auth", str(file)) as registry:
        assert pulled(registry, NAME, "1.0")


@pytest.mark.parametrize("fault", ["readable", "missing", "text", "twice", "url", "name"])
def test_what_cannot_be_used_is_refused_at_the_start_in_one_line(
    tmp_path: Path, fault: str
) -> None:
    """A file that others can read, none, or no config.json; names and URLs that are none."""
    path = auth_file(tmp_path, mode=0o604 if fault == "readable" else 0o600)
    if fault == "text":
        path.write_text("s3cret-word")
    file = tmp_path / "none" if fault == "missing" else path
    names = {"twice": ("a.io", "a.io"), "url": ("a.io=ftp://x",), "name": ("a/b",)}
    argv = [*DOCKET, "registry", "--bind", "127.0.0.1", "-p", "0", "-l", str(tmp_path / "store")]
    for name in names.get(fault, ("ghcr.io",)):
        argv += ["--upstream", name]
    argv += ["--upstream-auth", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "s3cret-word" not in done.stderr
    assert BASIC not in done.stderr
