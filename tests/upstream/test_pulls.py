"""Images that another registry has, pulled through this one."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor, Platform
from tests.support.agent_process import agent_process
from tests.support.commands import Commands
from tests.support.http_servers import Handler
from tests.support.images import image_of, layer_tar
from tests.upstream.conftest import MB, Start, Upstream, pulled
from tests.upstream.stand_in import upstream_of

APP = image_of([layer_tar("base", size=3 * MB), layer_tar("app", size=MB)], "app:1.0")
OTHER = image_of([layer_tar("base", size=3 * MB), layer_tar("other", size=MB)], "app:2.0")
NAME = "ghcr.io/acme/app"


def test_an_image_of_an_upstream_is_fetched_stored_and_served(
    upstream: Upstream, docket: Start
) -> None:
    """By tag and digest, under the upstream's name; then it is this registry's own."""
    digest = upstream.push("acme/app", "1.0", APP)
    with docket(upstream.url) as registry:
        by_tag = pulled(registry, NAME, "1.0")
        assert pulled(registry, NAME, digest) == by_tag
        tags = registry.ask("GET", f"/v2/{NAME}/tags/list").json
        assert tags == {"name": NAME, "tags": ["1.0"]}
        (row,) = registry.ask("GET", "/v2/_docket/images").json["images"]
        assert (row["name"], row["digest"]) == (NAME, str(digest))


def test_many_clients_of_one_cold_image_cost_the_upstream_one_fetch(docket: Start) -> None:
    """Concurrent askers share it, and a second pull asks nothing."""
    with upstream_of(APP) as upstream, docket(upstream.url) as registry:
        with ThreadPoolExecutor(12) as clients:
            manifests = list(clients.map(lambda _: pulled(registry, NAME, "1.0"), range(12)))
        assert all(plain == manifests[0] for plain in manifests)
        pulled(registry, NAME, "1.0")
        assert upstream.count("/manifests/") == 1
        assert all(upstream.count(str(layer)) == 1 for layer in upstream.layers)


def test_a_layer_is_sent_on_while_it_still_comes(docket: Start) -> None:
    """The first client has bytes before the upstream has sent the last ones."""
    with upstream_of(APP) as upstream, docket(upstream.url) as registry:
        layer = upstream.layers[0]
        assert registry.ask("GET", f"/v2/{NAME}/manifests/1.0").status == 200
        sent = APP.blobs("gzip")[1][f"blobs/sha256/{layer.hex}"]
        early = len(sent) // 2
        first_read = Event()

        def in_two_parts(handler: Handler) -> bool:
            if str(layer) not in handler.path:
                return False
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(sent)))
            handler.end_headers()
            handler.wfile.write(sent[:early])
            assert first_read.wait(30)
            handler.wfile.write(sent[early:])
            return True

        upstream.intercept.append(in_two_parts)
        url = f"{registry.url}/v2/{NAME}/blobs/{layer}"
        response = registry.pool.request("GET", url, preload_content=False)
        content = response.read(early // 2)
        first_read.set()
        content += response.read()
        assert Digest.of(content) == layer


def test_docket_pulls_it_through_its_torrent_and_lists_it(
    upstream: Upstream, docket: Start, tmp_path: Path
) -> None:
    """``docket pull``, ``inspect`` and ``images`` work as with a pushed image, layers not yet here
    too."""
    digest = upstream.push("acme/app", "1.0", APP)
    with docket(upstream.url) as registry:
        commands = Commands(registry.url, tmp_path / "host")
        commands("pull", f"{NAME}:1.0", "--layers-only")
        assert commands("inspect", f"{NAME}:1.0")["digest"] == str(digest)
        assert commands("fsck")["findings"] == []


def test_an_engine_pulls_it_through_an_agent(
    upstream: Upstream, docket: Start, tmp_path: Path
) -> None:
    """``?ns=ghcr.io`` at the agent means ``ghcr.io/…`` at the registry."""
    upstream.push("acme/app", "1.0", APP)
    with (
        docket(upstream.url) as registry,
        agent_process(registry.url, tmp_path / "host") as agent,
    ):
        answer = agent.get("acme/app/manifests/1.0?ns=ghcr.io")
        assert answer.status == 200, answer.data
        for layer in json.loads(answer.data)["layers"]:
            blob = agent.get(f"acme/app/blobs/{layer['digest']}?ns=ghcr.io").data
            assert str(Digest.of(blob)) == layer["digest"]
        assert agent.get("acme/none/manifests/1.0?ns=ghcr.io").status == 404
        assert agent.get("acme/app/manifests/1.0?ns=quay.io").status == 404


def test_docker_hubs_own_images_are_in_library(upstream: Upstream, docket: Start) -> None:
    """``docker.io/nginx`` is ``docker.io/library/nginx``, there and here."""
    upstream.push("library/nginx", "1.27", APP)
    with docket(upstream.url, name="docker.io") as registry:
        assert pulled(registry, "docker.io/nginx", "1.27")
        assert pulled(registry, "docker.io/library/nginx", "1.27")
        assert registry.ask("GET", "/v2/_catalog").json["repositories"] == [
            "docker.io/library/nginx"
        ]


def test_of_an_index_only_the_platforms_that_are_asked_for_come(
    upstream: Upstream, docket: Start, tmp_path: Path
) -> None:
    """The index is stored as it is; images, fsck, gc and torrents take an incomplete one."""
    arm = Platform("linux", "arm64")
    entries = []
    for image, platform in ((APP, Platform.of_host()), (OTHER, arm)):
        digest = upstream.push("acme/app", f"for-{platform.architecture}", image)
        size = len(image.blobs("gzip")[1][f"blobs/sha256/{digest.hex}"])
        entries.append(Descriptor(manifest.OCI_MANIFEST, digest, size, platform=platform))
    index = manifest.image_index(entries)
    upstream.put("acme/app", "multi", index, manifest.OCI_INDEX)
    with docket(upstream.url, pin_seconds=0) as registry:
        commands = Commands(registry.url, tmp_path / "host")
        commands("pull", f"{NAME}:multi", "--layers-only")
        assert registry.ask("GET", f"/v2/{NAME}/manifests/multi").body == index
        held = registry.files()
        assert f"blobs/sha256/{entries[1].digest.hex[:2]}/{entries[1].digest.hex}" not in held
        assert commands("fsck")["findings"] == []
        commands("gc", "--grace", "0")
        assert commands("fsck")["findings"] == []
        (row,) = commands("images")["images"]
        assert row["tag"] == "multi"
        assert pulled(registry, NAME, entries[1].digest)


def test_pushes_below_an_upstreams_name_are_refused(upstream: Upstream, docket: Start) -> None:
    """With the reason; other names take pushes, and what was fetched can be deleted."""
    upstream.push("acme/app", "1.0", APP)
    with docket(upstream.url) as registry:
        assert pulled(registry, NAME, "1.0")
        mine = registry.repository(f"{NAME}")
        assert mine.ask("POST", "blobs/uploads/").refused(403, "DENIED")
        assert mine.put("1.0", b"{}").refused(403, "DENIED")
        body = b'{"diff_ids": []}'
        assert mine.ask("POST", "_docket/missing", body=body).refused(403, "DENIED")
        assert registry.repository("ghcr.io.acme/app").ask("POST", "blobs/uploads/").status == 202
        assert mine.ask("DELETE", "manifests/1.0").status == 202


def test_other_names_are_404_without_a_question(docket: Start) -> None:
    """Whatever is not below an upstream's name isn't looked for anywhere."""
    with upstream_of(APP) as upstream, docket(upstream.url) as registry:
        for name in ("acme/app", "quay.io/acme/app", "ghcr.io", "ghcr.iox/acme/app"):
            assert registry.ask("GET", f"/v2/{name}/manifests/1.0").status == 404
        assert upstream.server.requests == []


def test_gc_removes_images_that_nobody_pulls_any_more(
    upstream: Upstream, docket: Start, tmp_path: Path
) -> None:
    """By ``--upstream-unused``; pushed images stay, and what was pulled since then too."""
    upstream.push("acme/app", "1.0", APP)
    with docket(upstream.url, pin_seconds=0) as registry:
        commands = Commands(registry.url, tmp_path / "host")
        (tmp_path / "mine.tar").write_bytes(OTHER.docker_save())
        commands("push", "mine:1.0", "--archive", tmp_path / "mine.tar")
        pulled(registry, NAME, "1.0")
        kept = commands("gc", "--upstream-unused", "1h", "--grace", "0")
        assert kept["tags"] == []
        assert commands("gc", "--keep", "1", "--older-than", "0", "--grace", "0")["tags"] == []
        planned = commands("gc", "--upstream-unused", "0", "--grace", "0", "--dry-run")
        swept = commands("gc", "--upstream-unused", "0", "--grace", "0")
        assert planned["tags"] == swept["tags"] == [f"{NAME}:1.0"]
        assert planned["freed"] == swept["freed"] > MB
        assert [row["name"] for row in commands("images")["images"]] == ["mine"]
        assert commands("fsck")["findings"] == []
        assert pulled(registry, NAME, "1.0")  # it is fetched again
