"""Who may change something: web pages, media types, --read-only and --writes-from."""

from __future__ import annotations

from pathlib import Path

import pytest

from docket.oci.digest import Digest
from tests.api.conftest import running
from tests.api.http import Registry, Repository
from tests.store.samples import image

ONE = image("layer")
JSON = {"Content-Type": "application/json"}

FOREIGN = {
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "another host of the site": {"Sec-Fetch-Site": "same-site"},
    "another origin": {"Origin": "http://evil.example"},
    "no origin": {"Origin": "null"},
    "the same host, another port": {"Origin": "http://127.0.0.1:1"},
    "a name that DNS points here": {
        "Origin": "http://evil.example",
        "Host": "evil.example",
        "Sec-Fetch-Site": "same-origin",
    },
}


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
def test_a_web_page_of_another_site(repo: Repository, headers: dict[str, str]) -> None:
    """No page that somebody looks at may push, delete or collect garbage; reading is not stopped
    here, since browsers keep the response from the page."""
    repo.push(ONE, "v1")
    gc = repo.registry.ask("POST", "/v2/_docket/gc", body=b"{}", headers=JSON | headers)
    assert gc.refused(403, "DENIED")
    assert repo.ask("DELETE", "manifests/v1", headers=headers).refused(403, "DENIED")
    assert repo.ask("POST", "blobs/uploads/", headers=headers).refused(403, "DENIED")
    assert repo.ask("GET", "manifests/v1", headers=headers).status == 200


def test_a_web_page_of_the_registry_itself(registry: Registry) -> None:
    """A page at the registry's own address may call it; so may a user, without a page."""
    for headers in ({"Origin": registry.url}, {"Sec-Fetch-Site": "none"}, {}):
        answer = registry.ask("POST", "/v2/_docket/gc", body=b"{}", headers=JSON | headers)
        assert answer.status == 200, headers


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
@pytest.mark.parametrize("path", ["gc", "fsck"])
def test_json_that_is_called_something_else(registry: Registry, path: str, media_type: str) -> None:
    """A page may send text and forms anywhere without asking first: only JSON is taken."""
    headers = {"Content-Type": media_type} if media_type else {"X": "y"}
    answer = registry.ask("POST", f"/v2/_docket/{path}", body=b"{}", headers=headers)
    assert answer.refused(415, "UNSUPPORTED")


@pytest.mark.parametrize("keep", [0, -1])
def test_gc_that_would_keep_nothing(registry: Registry, keep: int) -> None:
    """The newest release stays, whoever calls: keep is 1 or more, as in the command."""
    answer = registry.ask("POST", "/v2/_docket/gc", body=b'{"keep":%d}' % keep, headers=JSON)
    assert answer.refused(400, "UNSUPPORTED")


CHANGES = [
    ("POST", "/v2/app/blobs/uploads/"),
    ("DELETE", "/v2/app/manifests/v1"),
    ("PUT", "/v2/app/manifests/v2"),
    ("POST", "/v2/_docket/gc"),
    ("POST", "/v2/_docket/fsck"),
    ("POST", "/v2/app/_docket/missing"),
    ("POST", "/v2/_docket/deploys"),
]


def test_a_registry_that_is_read_only(tmp_path: Path) -> None:
    """--read-only: hosts pull as before, and nothing changes."""
    with running(tmp_path / "store") as registry:
        registry.repository("app").push(ONE, "v1")
    with running(tmp_path / "store", "--read-only") as registry:
        for method, path in CHANGES:
            answer = registry.ask(method, path, body=b"{}")
            assert answer.refused(403, "DENIED"), path
        assert registry.ask("GET", "/v2/app/manifests/v1").body == ONE.content
        assert registry.ask("GET", "/v2/app/_docket/torrent/v1").status == 200


def test_writes_from_a_network(tmp_path: Path) -> None:
    """--writes-from: its clients push, others pull; a proxy's header can't say otherwise."""
    with running(tmp_path / "store", "--writes-from", "192.0.2.0/24,::1") as registry:
        for method, path in CHANGES:
            headers = {"X-Forwarded-For": "192.0.2.1"}
            assert registry.ask(method, path, body=b"{}", headers=headers).refused(403, "DENIED")
        assert registry.ask("GET", "/v2/").status == 200
    options = ("--writes-from", "127.0.0.0/8", "--writes-from", "192.0.2.0/24")
    with running(tmp_path / "store", *options) as registry:
        digest = registry.repository("app").upload(b"blob")
        assert digest == Digest.of(b"blob")
