"""Upstreams that are down, slow, wrong, or that limit the rate."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import urllib3
from urllib3.exceptions import HTTPError

from docket.oci.digest import Digest
from tests.api.conftest import running
from tests.support.disks import tiny_disk
from tests.support.http_servers import Handler
from tests.support.images import image_of, layer_tar
from tests.support.servers import docker_registry
from tests.upstream.conftest import MB, Start, Upstream, pulled
from tests.upstream.stand_in import Intercept, upstream_of

APP = image_of([layer_tar("base", size=3 * MB)], "app:1.0")
NEWER = image_of([layer_tar("newer", size=MB)], "app:1.0")
NAME = "ghcr.io/acme/app"
TAG = f"/v2/{NAME}/manifests/1.0"


def sending(status: int, headers: dict[str, str] | None = None, part: str = "/v2/") -> Intercept:
    """Answers each request whose path has *part* with *status*."""

    def intercept(handler: Handler) -> bool:
        if part not in handler.path:
            return False
        handler.respond(status, b"{}", headers)
        return True

    return intercept


def received(url: str) -> tuple[int, bytes]:
    """The status of a response, and what came of its body before the connection was closed."""
    with urllib3.PoolManager(retries=False, timeout=30) as pool:
        response = pool.request("GET", url, preload_content=False, enforce_content_length=False)
        content = bytearray()
        with suppress(HTTPError):
            while block := response.read1(65536):
                content += block
        return response.status, bytes(content)


def test_a_tag_that_moved_upstream_is_seen_after_the_ttl(upstream: Upstream, docket: Start) -> None:
    """Before that the upstream isn't asked."""
    first = upstream.push("acme/app", "1.0", APP)
    with docket(upstream.url, "--upstream-ttl", "0") as registry:
        assert registry.ask("GET", TAG).headers["Docker-Content-Digest"] == str(first)
        second = upstream.push("acme/app", "1.0", NEWER)
        answer = registry.ask("GET", TAG)
        assert answer.headers["Docker-Content-Digest"] == str(second)
        assert "Warning" not in answer.headers
        assert pulled(registry, NAME, first)


def test_a_tag_is_compared_by_head_and_only_after_the_ttl(docket: Start) -> None:
    """A tag that didn't move costs no manifest; one that is fresh costs nothing."""
    with upstream_of(APP) as upstream:
        with docket(upstream.url, "--upstream-ttl", "1h") as registry:
            for _ in range(3):
                assert registry.ask("GET", TAG).status == 200
            assert upstream.count("/manifests/1.0", "HEAD") == 0
        with docket(upstream.url, "--upstream-ttl", "0") as registry:
            for _ in range(3):
                assert registry.ask("GET", TAG).status == 200
        assert upstream.count("/manifests/1.0", "HEAD") == 3
        assert upstream.count("/manifests/1.0") == 1


def test_what_is_here_is_served_while_the_upstream_is_down(docket: Start, tmp_path: Path) -> None:
    """With a warning and one line in the log; what isn't here is an error that names it."""
    with docker_registry(tmp_path / "up") as server:
        Upstream(server.url).push("acme/app", "1.0", APP)
        with docket(server.url) as registry:
            pulled(registry, NAME, "1.0")
    options = ("--upstream-ttl", "0")
    with docket(server.url, *options, log_has="what is here is served") as registry:
        for _ in range(5):
            answer = registry.ask("GET", TAG)
            assert answer.status == 200
            assert answer.headers["Warning"].startswith('110 docket "ghcr.io: ')
        assert pulled(registry, NAME, "1.0")
        unknown = registry.ask("GET", "/v2/ghcr.io/acme/other/manifests/1.0")
        assert unknown.refused(502, "UNAVAILABLE")
        assert "ghcr.io" in unknown.json["errors"][0]["message"]
    assert len((tmp_path / "store.log").read_text().splitlines()) == 1


def test_a_slow_upstream_delays_what_is_here_by_seconds_at_most(docket: Start) -> None:
    """A tag that can't be compared in time is served as it is."""
    with upstream_of(APP) as upstream:
        options = ("--upstream-ttl", "0")
        with docket(upstream.url, *options, log_has="what is here is served") as registry:
            assert registry.ask("GET", TAG).status == 200

            def hang(handler: Handler) -> bool:
                handler.server.closing.wait(60)
                return False

            upstream.intercept.append(hang)
            began = time.monotonic()
            answer = registry.ask("GET", TAG)
            assert answer.headers["Warning"].startswith("110 ")
            assert time.monotonic() - began < 8
            upstream.server.closing.set()


def test_a_limit_of_the_rate_is_honoured_and_passed_on(docket: Start) -> None:
    """Nothing is asked before Retry-After is over; what is here is served."""
    with upstream_of(APP) as upstream:
        options = ("--upstream-ttl", "0")
        with docket(upstream.url, *options, log_has="what is here is served") as registry:
            assert registry.ask("GET", TAG).status == 200
            upstream.intercept.append(sending(429, {"Retry-After": "600"}))
            asked = len(upstream.server.requests)
            for _ in range(5):
                assert registry.ask("GET", TAG).headers["Warning"].startswith("110 ")
                limited = registry.ask("GET", "/v2/ghcr.io/acme/other/manifests/1.0")
                assert limited.refused(429, "TOOMANYREQUESTS")
                assert 500 < int(limited.headers["Retry-After"]) <= 600
            assert len(upstream.server.requests) == asked + 1


def test_an_unknown_image_is_404_and_not_asked_for_again_at_once(docket: Start) -> None:
    """A typing mistake in a fleet's manifest is one request."""
    with upstream_of(APP) as upstream, docket(upstream.url) as registry:
        for _ in range(3):
            path = "/v2/ghcr.io/acme/none/manifests/1.0"
            assert registry.ask("GET", path).refused(404, "MANIFEST_UNKNOWN")
            assert registry.ask("GET", f"/v2/{NAME}/blobs/{Digest.of(b'none')}").status == 404
        assert upstream.count("none/manifests") == 1
        assert upstream.count("/blobs/") == 1


@pytest.mark.parametrize("fault", ["bytes", "short", "long", "manifest"])
def test_what_is_wrong_is_never_stored_nor_sent_whole(docket: Start, fault: str) -> None:
    """Wrong bytes under a digest, fewer or more than the manifest says, a wrong manifest."""
    with upstream_of(APP) as upstream:
        layer = upstream.layers[0]
        good = APP.blobs("gzip")[1][f"blobs/sha256/{layer.hex}"]
        bad = {"bytes": good[:-1] + b"x", "short": good[:-5], "long": good + b"x"}.get(fault, b"")

        def wrong(handler: Handler) -> bool:
            if fault == "manifest" and "/manifests/" in handler.path:
                headers = {"Docker-Content-Digest": str(upstream.digest)}
                handler.respond(200, b'{"schemaVersion": 2}', headers)
                return True
            if fault != "manifest" and str(layer) in handler.path:
                handler.respond(200, bad)
                return True
            return False

        upstream.intercept.append(wrong)
        with docket(
            upstream.url, log_has="was not fetched: ghcr.io: " if fault != "manifest" else "is here"
        ) as registry:
            if fault == "manifest":
                assert registry.ask("GET", TAG).refused(502, "UNAVAILABLE")
                assert registry.files() == set()
                return
            assert registry.ask("GET", TAG).status == 200
            status, content = received(f"{registry.url}/v2/{NAME}/blobs/{layer}")
            assert status == (200 if fault == "bytes" else 502)
            if fault == "bytes":
                assert len(content) < len(good)
            assert not any(layer.hex in name for name in registry.files())
            assert not any(name.startswith("uploads/") for name in registry.files())


def test_a_connection_that_breaks_in_mid_layer_is_continued(docket: Start) -> None:
    """By a Range request: nothing comes twice."""
    with upstream_of(APP) as upstream:
        layer = upstream.layers[0]
        good = APP.blobs("gzip")[1][f"blobs/sha256/{layer.hex}"]
        broken: list[str] = []

        def break_once(handler: Handler) -> bool:
            if str(layer) not in handler.path or broken:
                return False
            broken.append(handler.path)
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(good)))
            handler.end_headers()
            handler.wfile.write(good[: len(good) // 2])
            handler.close_connection = True
            return True

        upstream.intercept.append(break_once)
        with docket(upstream.url) as registry:
            assert pulled(registry, NAME, "1.0")
        (again,) = [r for r in upstream.server.requests if "Range" in r.headers]
        assert again.headers["Range"] == f"bytes={len(good) // 2}-"


def test_a_registry_that_is_stopped_in_mid_fetch_ends_soon_and_leaves_nothing(
    docket: Start, tmp_path: Path
) -> None:
    """SIGTERM while an upstream sends nothing: within 5 s, without half a layer."""
    with upstream_of(APP) as upstream:
        layer = upstream.layers[0]
        good = APP.blobs("gzip")[1][f"blobs/sha256/{layer.hex}"]

        def stop_in_the_middle(handler: Handler) -> bool:
            if str(layer) not in handler.path:
                return False
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(good)))
            handler.end_headers()
            handler.wfile.write(good[: len(good) // 2])
            handler.server.closing.wait(60)
            return True

        upstream.intercept.append(stop_in_the_middle)
        with docket(upstream.url, log_has="GET") as registry:
            assert registry.ask("GET", TAG).status == 200
            url = f"{registry.url}/v2/{NAME}/blobs/{layer}"
            response = registry.pool.request("GET", url, preload_content=False)
            assert response.read(1000)
            began = time.monotonic()
        assert time.monotonic() - began < 5
        upstream.server.closing.set()
    assert list((tmp_path / "store" / "uploads").iterdir()) == []


def test_an_upstream_that_dies_in_mid_layer_leaves_nothing_and_heals(docket: Start) -> None:
    """The pull that saw it fails; the first one after its return brings the whole layer."""
    with upstream_of(APP) as upstream:
        layer = upstream.layers[0]
        good = APP.blobs("gzip")[1][f"blobs/sha256/{layer.hex}"]

        def die(handler: Handler) -> bool:
            if str(layer) not in handler.path:
                return False
            if "Range" not in handler.headers:
                handler.send_response(200)
                handler.send_header("Content-Length", str(len(good)))
                handler.end_headers()
                handler.wfile.write(good[: len(good) // 2])
            handler.close_connection = True
            return True

        upstream.intercept.append(die)
        with docket(upstream.url, log_has="was not fetched: ghcr.io: no answer") as registry:
            assert registry.ask("GET", TAG).status == 200
            status, content = received(f"{registry.url}/v2/{NAME}/blobs/{layer}")
            assert status == 200
            assert len(content) < len(good)
            assert not any(name.startswith("uploads/") for name in registry.files())
            upstream.intercept.clear()
            deadline = time.monotonic() + 20
            while registry.ask("GET", f"/v2/{NAME}/blobs/{layer}").status != 200:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert pulled(registry, NAME, "1.0")


def test_a_client_that_leaves_stops_no_fetch(docket: Start) -> None:
    """Another client, and the store, get the layer all the same; it was fetched once."""
    with upstream_of(APP) as upstream, docket(upstream.url) as registry:
        layer = upstream.layers[0]
        good = APP.blobs("gzip")[1][f"blobs/sha256/{layer.hex}"]
        has_left = threading.Event()

        def pause(handler: Handler) -> bool:
            if str(layer) not in handler.path:
                return False
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(good)))
            handler.end_headers()
            handler.wfile.write(good[: len(good) // 2])
            assert has_left.wait(30)
            handler.wfile.write(good[len(good) // 2 :])
            return True

        upstream.intercept.append(pause)
        assert registry.ask("GET", TAG).status == 200
        url = f"{registry.url}/v2/{NAME}/blobs/{layer}"
        leaving = registry.pool.request("GET", url, preload_content=False)
        staying = registry.pool.request("GET", url, preload_content=False)
        assert leaving.read(1000)
        leaving.close()
        has_left.set()
        assert Digest.of(staying.data) == layer
        assert pulled(registry, NAME, "1.0")
        assert upstream.count(str(layer)) == 1


def test_a_layer_that_does_not_fit_on_the_disk_is_507_and_leaves_nothing() -> None:
    """The client knows at once, and the next request may succeed."""
    big = image_of([layer_tar("big", size=70 * MB)], "app:1.0")
    with tiny_disk(60) as disk, upstream_of(big) as upstream:
        options = ("--upstream", f"ghcr.io={upstream.url}")
        with running(disk / "store", *options, log_has="no space left") as registry:
            assert registry.ask("GET", TAG).status == 200
            blob = registry.ask("GET", f"/v2/{NAME}/blobs/{upstream.layers[0]}")
            assert blob.refused(507, "TOOMANYREQUESTS")
            assert not any(name.startswith("uploads/") for name in registry.files())
