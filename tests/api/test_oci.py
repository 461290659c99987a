"""The OCI distribution API 1.1, call by call, and what it answers to bad input."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import uuid
from typing import Any
from urllib.parse import urlsplit

import pytest

from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor
from tests.api.http import Answer, Registry, Repository
from tests.store.samples import image, packed, tar

LAYER = packed(tar("layer", size=300_000))
DIGEST = Digest.of(LAYER)
ONE, TWO = image("base", "one"), image("base", "two")
ABSENT = Digest.of(b"absent")


def part(first: int, content: bytes) -> dict[str, str]:
    """The Content-Range of *content* that begins at *first*."""
    return {"Content-Range": f"{first}-{first + len(content) - 1}"}


def index_of(*rows: Descriptor) -> bytes:
    """An index."""
    return manifest.image_index(list(rows))


def described(content: bytes, kind: str = manifest.OCI_MANIFEST) -> Descriptor:
    """The descriptor of *content*."""
    return Descriptor(kind, Digest.of(content), len(content))


# -- the version check


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
def test_version(registry: Registry, path: str) -> None:
    """OCI distribution § determining support: 200, with the header docker 20.10 needs."""
    answer = registry.ask("GET", path)
    assert answer.status == 200
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


def test_every_answer_names_the_version(repo: Repository) -> None:
    """docker 20.10: the version header is on errors too."""
    for answer in (repo.ask("GET", f"blobs/{ABSENT}"), repo.ask("GET", "manifests/v1")):
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


# -- pulling blobs


def test_get_a_blob(repo: Repository) -> None:
    """OCI distribution § pulling blobs: the bytes, their digest, and never a Content-Encoding."""
    repo.upload(LAYER)
    answer = repo.ask("GET", f"blobs/{DIGEST}", headers={"Accept-Encoding": "zstd,gzip"})
    assert answer.status == 200
    assert answer.body == LAYER
    assert answer.headers["Docker-Content-Digest"] == str(DIGEST)
    assert answer.headers["Content-Length"] == str(len(LAYER))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert "Content-Encoding" not in answer.headers


def test_head_a_blob(repo: Repository) -> None:
    """OCI distribution § checking if content exists: HEAD has digest and length, no body."""
    repo.upload(LAYER)
    answer = repo.ask("HEAD", f"blobs/{DIGEST}")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(LAYER))
    assert answer.headers["Docker-Content-Digest"] == str(DIGEST)


def test_an_empty_blob(repo: Repository) -> None:
    """No bytes are a blob as well."""
    empty = repo.upload(b"")
    answer = repo.ask("GET", f"blobs/{empty}")
    assert (answer.status, answer.body) == (200, b"")
    assert repo.ask("GET", f"blobs/{empty}", headers={"Range": "bytes=0-"}).status == 416


def test_a_blob_that_is_not_there(repo: Repository) -> None:
    """OCI distribution § pulling blobs: 404 BLOB_UNKNOWN."""
    assert repo.ask("GET", f"blobs/{ABSENT}").refused(404, "BLOB_UNKNOWN")
    assert repo.ask("HEAD", f"blobs/{ABSENT}").status == 404


def test_a_blob_of_another_repository(repo: Repository, registry: Registry) -> None:
    """Bad input § reading a blob of another repository: 404, as if it weren't there."""
    repo.upload(LAYER)
    second_repo = registry.repository(f"{repo.name}/other")
    assert second_repo.ask("GET", f"blobs/{DIGEST}").refused(404, "BLOB_UNKNOWN")
    assert second_repo.ask("DELETE", f"blobs/{DIGEST}").refused(404, "BLOB_UNKNOWN")


def test_a_manifest_is_a_blob(repo: Repository) -> None:
    """OCI distribution § pulling: a manifest's bytes may be fetched as a blob."""
    repo.push(ONE)
    assert repo.ask("GET", f"blobs/{ONE.digest}").body == ONE.content


@pytest.mark.parametrize(
    ("asked", "first", "behind"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=100-", 100, len(LAYER)),
        ("bytes=0-99999999999", 0, len(LAYER)),
        ("bytes=-5", len(LAYER) - 5, len(LAYER)),
        ("bytes=-99999999999", 0, len(LAYER)),
        (f"bytes={len(LAYER) - 1}-", len(LAYER) - 1, len(LAYER)),
    ],
)
def test_a_range(repo: Repository, asked: str, first: int, behind: int) -> None:
    """RFC 9110 § 14: one range is 206 with an exact Content-Range; a suffix counts from the end."""
    repo.upload(LAYER)
    for method, body in (("GET", LAYER[first:behind]), ("HEAD", b"")):
        answer = repo.ask(method, f"blobs/{DIGEST}", headers={"Range": asked})
        assert answer.status == 206
        assert answer.body == body
        assert answer.headers["Content-Range"] == f"bytes {first}-{behind - 1}/{len(LAYER)}"
        assert answer.headers["Content-Length"] == str(behind - first)


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=500-0",
        "bytes=-0",
        f"bytes={len(LAYER)}-",
        "bytes=99999999999-",
    ],
)
def test_a_range_that_can_not_be(repo: Repository, asked: str) -> None:
    """RFC 9110 § 15.5.17: 416 with the blob's length, whatever the numbers."""
    repo.upload(LAYER)
    answer = repo.ask("GET", f"blobs/{DIGEST}", headers={"Range": asked})
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(LAYER)}"


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-1,5-6",
        "bytes=" + ",".join("0-" for _ in range(500)),
        "bytes=" + "9" * 5000 + "-",
        "lines=1-2",
        "bytes=-",
        "x",
    ],
)
def test_ranges_that_are_ignored(repo: Repository, asked: str) -> None:
    """RFC 9110 § 14.2: several ranges, other units and nonsense give the whole, 200."""
    repo.upload(LAYER)
    answer = repo.ask("GET", f"blobs/{DIGEST}", headers={"Range": asked})
    assert (answer.status, answer.body) == (200, LAYER)


# -- pushing blobs


def assert_created(repo: Repository, answer: Answer, content: bytes) -> None:
    """The answer's Location is that of a blob with *content*."""
    assert answer.status == 201, answer
    assert answer.headers["Docker-Content-Digest"] == str(Digest.of(content))
    assert repo.registry.ask("GET", answer.headers["Location"]).body == content


def test_post_then_put(repo: Repository) -> None:
    """OCI distribution § POST then PUT: a session, then the whole body with its digest."""
    answer = repo.registry.ask("PUT", repo.begin(), digest=DIGEST, body=LAYER)
    assert_created(repo, answer, LAYER)


def test_single_post(repo: Repository) -> None:
    """OCI distribution § single POST: 201 at once."""
    answer = repo.ask("POST", "blobs/uploads/", digest=DIGEST, body=LAYER)
    assert_created(repo, answer, LAYER)


def test_chunks(repo: Repository) -> None:
    """OCI distribution § pushing in chunks: 202 with Location and Range, then an empty PUT."""
    location = repo.begin()
    for at in range(0, len(LAYER), 100_000):
        block = LAYER[at : at + 100_000]
        answer = repo.registry.ask("PATCH", location, body=block, headers=part(at, block))
        assert answer.status == 202
        assert answer.headers["Range"] == f"0-{at + len(block) - 1}"
        location = answer.headers["Location"]
    assert_created(repo, repo.registry.ask("PUT", location, digest=DIGEST), LAYER)


def test_the_last_chunk_in_the_put(repo: Repository) -> None:
    """OCI distribution § pushing in chunks: the closing PUT may have the last chunk."""
    location = repo.begin()
    repo.registry.ask("PATCH", location, body=LAYER[:1000], headers=part(0, LAYER[:1000]))
    answer = repo.registry.ask(
        "PUT", location, digest=DIGEST, body=LAYER[1000:], headers=part(1000, LAYER[1000:])
    )
    assert_created(repo, answer, LAYER)


def test_a_stream_without_length(repo: Repository) -> None:
    """docker 20.10: one PATCH in transfer chunks, without Content-Range, then an empty PUT."""
    blocks = (LAYER[at : at + 7000] for at in range(0, len(LAYER), 7000))
    answer = repo.registry.ask("PATCH", repo.begin(), body=blocks)
    assert answer.status == 202
    assert answer.headers["Range"] == f"0-{len(LAYER) - 1}"
    location = answer.headers["Location"]
    assert_created(repo, repo.registry.ask("PUT", location, digest=DIGEST, body=b""), LAYER)


def test_a_new_session(repo: Repository) -> None:
    """OCI distribution § pushing in chunks: the Location is the session's; nothing has arrived."""
    answer = repo.ask("POST", "blobs/uploads/", headers={"Content-Length": "0"})
    assert answer.status == 202
    assert answer.headers["Range"] == "0-0"
    assert answer.headers["Docker-Upload-UUID"] in answer.headers["Location"]
    status = repo.registry.ask("GET", answer.headers["Location"])
    assert (status.status, status.headers["Range"]) == (204, "0-0")
    assert status.headers["Location"] == answer.headers["Location"]


def test_resume(repo: Repository) -> None:
    """OCI distribution § resuming: GET tells how far it is; the client goes on from there."""
    location = repo.begin()
    repo.registry.ask("PATCH", location, body=LAYER[:12_345])
    status = repo.registry.ask("GET", location)
    assert (status.status, status.headers["Range"]) == (204, "0-12344")
    repo.registry.ask("PATCH", location, body=LAYER[12_345:], headers=part(12_345, LAYER[12_345:]))
    assert_created(repo, repo.registry.ask("PUT", location, digest=DIGEST), LAYER)


def test_resume_after_a_broken_connection(repo: Repository) -> None:
    """OCI distribution § resuming: what came before the connection broke is kept."""
    location = repo.begin()
    address = urlsplit(repo.registry.url)
    with socket.create_connection((str(address.hostname), address.port or 0)) as connection:
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(LAYER)}\r\n\r\n"
        connection.sendall(head.encode() + LAYER[:200_000])
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)  # the registry has seen the end; it stores what it has after that
    answers = (repo.registry.ask("GET", location) for _ in range(2000))
    assert any(status.headers["Range"] == "0-199999" for status in answers)
    last_part = LAYER[200_000:]
    answer = repo.registry.ask(
        "PUT", location, digest=DIGEST, body=last_part, headers=part(200_000, last_part)
    )
    assert_created(repo, answer, LAYER)


@pytest.mark.parametrize("at", [0, 99, 101, 100_000])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_chunk_out_of_order(repo: Repository, method: str, at: int) -> None:
    """OCI distribution § pushing in chunks: 416 with Location and Range, and the session stays."""
    location = repo.begin()
    repo.registry.ask("PATCH", location, body=LAYER[:100], headers=part(0, LAYER[:100]))
    path = f"{location}?digest={DIGEST}"
    answer = repo.registry.ask(method, path, body=LAYER[100:], headers=part(at, LAYER[100:]))
    assert answer.refused(416, "BLOB_UPLOAD_INVALID")
    assert answer.headers["Range"] == "0-99"
    assert answer.headers["Location"] == location
    answer = repo.registry.ask("PUT", location, digest=DIGEST, body=LAYER[100:])
    assert_created(repo, answer, LAYER)


@pytest.mark.parametrize(
    "header", ["", "x", "1", "a-b", "-5", "5-", "0-4", "5-0", "0-" + "9" * 5000, "9" * 5000 + "-0"]
)
def test_a_content_range_that_is_none(repo: Repository, header: str) -> None:
    """OCI distribution § pushing in chunks: Content-Range is first-last of this very body."""
    location = repo.begin()
    answer = repo.registry.ask("PATCH", location, body=b"12", headers={"Content-Range": header})
    assert answer.status in (400, 416)
    assert repo.registry.ask("GET", location).headers["Range"] == "0-0"


def test_cancel(repo: Repository) -> None:
    """OCI distribution § cancelling: 204, then the session is unknown and nothing is left."""
    before = repo.registry.files()
    location = repo.begin()
    repo.registry.ask("PATCH", location, body=LAYER)
    assert repo.registry.ask("DELETE", location).status == 204
    for method in ("GET", "PATCH", "DELETE"):
        assert repo.registry.ask(method, location).refused(404, "BLOB_UPLOAD_UNKNOWN")
    assert repo.registry.ask("PUT", location, digest=DIGEST).refused(404, "BLOB_UPLOAD_UNKNOWN")
    assert repo.registry.files() == before


def test_unknown_sessions(repo: Repository, registry: Registry) -> None:
    """Bad input § upload session hijack or traversal: other UUIDs, paths and repositories: 404."""
    location = repo.begin()
    mine = location.rpartition("/")[2]
    for name in (uuid.uuid4(), "x", mine + "x", "%00", "%2e%2e"):
        path = f"/v2/{repo.name}/blobs/uploads/{name}"
        assert registry.ask("GET", path).refused(404, "BLOB_UPLOAD_UNKNOWN")
        assert registry.ask("PATCH", path, body=b"x").refused(404, "BLOB_UPLOAD_UNKNOWN")
    elsewhere = f"/v2/{repo.name}-2/blobs/uploads/{mine}"
    for method in ("GET", "PATCH", "DELETE"):
        assert registry.ask(method, elsewhere).refused(404, "BLOB_UPLOAD_UNKNOWN")
    assert registry.ask("PUT", elsewhere, digest=DIGEST).refused(404, "BLOB_UPLOAD_UNKNOWN")
    assert registry.ask("GET", location).status == 204


def test_two_writers(repo: Repository) -> None:
    """Bad input § upload session: one writer at a time; the second is told 409."""
    location = repo.begin()
    address = urlsplit(repo.registry.url)
    first = http.client.HTTPConnection(str(address.hostname), address.port)
    first.putrequest("PATCH", location)
    first.putheader("Content-Length", "4")
    first.putheader("Expect", "100-continue")
    first.endheaders()
    assert first.sock.recv(100).startswith(b"HTTP/1.1 100"), "the registry reads the body"
    second = repo.registry.ask("PATCH", location, body=b"evil")
    assert second.refused(409, "BLOB_UPLOAD_INVALID")
    assert repo.registry.ask("DELETE", location).refused(409, "BLOB_UPLOAD_INVALID")
    first.send(b"good")
    assert first.getresponse().status == 202
    first.close()
    answer = repo.registry.ask("PUT", location, digest=Digest.of(b"good"))
    assert_created(repo, answer, b"good")


def test_mount(repo: Repository, registry: Registry) -> None:
    """OCI distribution § mounting: 201 with Location when *from* has it."""
    repo.upload(LAYER)
    second_repo = registry.repository(f"{repo.name}-2")
    answer = second_repo.ask("POST", "blobs/uploads/", **{"mount": DIGEST, "from": repo.name})
    assert_created(second_repo, answer, LAYER)
    assert answer.headers["Location"] == f"/v2/{second_repo.name}/blobs/{DIGEST}"


def test_mount_without_from(repo: Repository, registry: Registry) -> None:
    """OCI distribution § mounting: without *from* the registry may find it on its own."""
    repo.upload(LAYER)
    second_repo = registry.repository(f"{repo.name}-2")
    assert_created(second_repo, second_repo.ask("POST", "blobs/uploads/", mount=DIGEST), LAYER)


def test_mount_what_is_not_there(repo: Repository, registry: Registry) -> None:
    """OCI distribution § mounting: what *from* doesn't have becomes an upload session, 202."""
    repo.upload(LAYER)
    second_repo = registry.repository(f"{repo.name}-2")
    answers = [
        second_repo.ask("POST", "blobs/uploads/", **{"mount": DIGEST, "from": f"{repo.name}-3"}),
        second_repo.ask("POST", "blobs/uploads/", **{"mount": ABSENT, "from": repo.name}),
        second_repo.ask("POST", "blobs/uploads/", mount=ABSENT),
    ]
    for answer in answers:
        assert answer.status == 202
        assert registry.ask("DELETE", answer.headers["Location"]).status == 204
    assert second_repo.ask("HEAD", f"blobs/{DIGEST}").status == 404


def test_delete_a_blob(repo: Repository, registry: Registry) -> None:
    """OCI distribution § deleting blobs: 202, then 404 here at once; other repositories keep it."""
    repo.upload(LAYER)
    second_repo = registry.repository(f"{repo.name}-2")
    second_repo.ask("POST", "blobs/uploads/", **{"mount": DIGEST, "from": repo.name})
    assert repo.ask("DELETE", f"blobs/{DIGEST}").status == 202
    assert repo.ask("GET", f"blobs/{DIGEST}").refused(404, "BLOB_UNKNOWN")
    assert repo.ask("DELETE", f"blobs/{DIGEST}").refused(404, "BLOB_UNKNOWN")
    assert second_repo.ask("HEAD", f"blobs/{DIGEST}").status == 200


def test_a_sha512_blob(repo: Repository) -> None:
    """OCI image § registered algorithms: a blob may be pushed and pulled by SHA-512."""
    digest = Digest.of(LAYER, algorithm="sha512")
    answer = repo.ask("POST", "blobs/uploads/", digest=digest, body=LAYER)
    assert answer.status == 201
    assert answer.headers["Docker-Content-Digest"] == str(digest)
    assert repo.ask("GET", f"blobs/{digest}").body == LAYER
    location = repo.begin()
    repo.registry.ask("PATCH", location, body=LAYER[:9])
    assert repo.registry.ask("PUT", location, digest=digest, body=LAYER[9:]).status == 201


def test_bytes_that_are_something_else(repo: Repository) -> None:
    """Bad input § digest mismatch: 400 DIGEST_INVALID; the session and its bytes are gone."""
    before = repo.registry.files()
    expected = Digest.of(b"unique" + uuid.uuid4().bytes)
    answer = repo.ask("POST", "blobs/uploads/", digest=expected, body=LAYER[:99])
    assert answer.refused(400, "DIGEST_INVALID")
    location = repo.begin()
    repo.registry.ask("PATCH", location, body=LAYER[:9])
    answer = repo.registry.ask("PUT", location, digest=expected, body=LAYER[9:99])
    assert answer.refused(400, "DIGEST_INVALID")
    assert repo.registry.ask("GET", location).refused(404, "BLOB_UPLOAD_UNKNOWN")
    assert repo.ask("HEAD", f"blobs/{expected}").status == 404
    assert repo.registry.files() == before


@pytest.mark.parametrize("text", ["", "x", "sha256:12", "md5:" + "a" * 32, "sha256:" + "A" * 64])
def test_digests_that_are_none(repo: Repository, text: str) -> None:
    """Invariant 5: 400 DIGEST_INVALID wherever a digest is expected; a session stays."""
    before = repo.registry.files()
    location = repo.begin()
    answer = repo.registry.ask("PUT", location, digest=text, body=LAYER)
    assert answer.refused(400, "DIGEST_INVALID")
    assert repo.registry.ask("GET", location).status == 204
    assert repo.registry.ask("DELETE", location).status == 204
    if text:
        assert repo.ask("GET", f"blobs/{text}").refused(400, "DIGEST_INVALID")
        assert repo.ask("POST", "blobs/uploads/", digest=text).refused(400, "DIGEST_INVALID")
        assert repo.ask("POST", "blobs/uploads/", mount=text).refused(400, "DIGEST_INVALID")
        assert repo.ask("GET", f"referrers/{text}").refused(400, "DIGEST_INVALID")
    assert repo.registry.files() == before


@pytest.mark.parametrize("name", ["Upper", "a//b", "a..b", "-a", "a" * 256, "a%00b", "%2e%2e/a"])
def test_names_that_are_none(registry: Registry, name: str) -> None:
    """OCI distribution § pulling manifests: a bad name is an error, NAME_INVALID, never a path."""
    before = registry.files()
    for method, path in [
        ("GET", "tags/list"),
        ("POST", "blobs/uploads/"),
        ("GET", f"blobs/{DIGEST}"),
        ("GET", "manifests/latest"),
        ("PUT", "manifests/latest"),
    ]:
        answer = registry.ask(method, f"{registry.url}/v2/{name}/{path}")
        assert answer.status in (400, 404)
        assert answer.json["errors"][0]["code"] in ("NAME_INVALID", "NAME_UNKNOWN")
    answer = registry.ask("POST", f"/v2/a/blobs/uploads/?mount={DIGEST}&from=Upper")
    assert answer.refused(400, "NAME_INVALID")
    assert registry.files() == before


# -- manifests


def test_put_and_get_a_manifest(repo: Repository) -> None:
    """OCI distribution § pushing manifests: 201, Location; back come the exact bytes and type."""
    for blob in ONE.blobs:
        repo.upload(blob)
    answer = repo.put("v1", ONE.content, kind=f"{manifest.OCI_MANIFEST}; charset=utf-8")
    assert answer.status == 201
    assert answer.headers["Docker-Content-Digest"] == str(ONE.digest)
    assert "OCI-Subject" not in answer.headers
    for path in (answer.headers["Location"], f"/v2/{repo.name}/manifests/v1"):
        current = repo.registry.ask("GET", path)
        assert (current.status, current.body) == (200, ONE.content)
        assert current.headers["Content-Type"] == manifest.OCI_MANIFEST
        assert current.headers["Docker-Content-Digest"] == str(ONE.digest)
        head = repo.registry.ask("HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == str(len(ONE.content))
        assert head.headers["Content-Type"] == manifest.OCI_MANIFEST
        assert head.headers["Docker-Content-Digest"] == str(ONE.digest)


def test_exact_bytes(repo: Repository) -> None:
    """OCI distribution § pulling manifests: white space and unknown keys come back as they were."""
    plain = json.loads(ONE.content) | {"x-unknown": [1.50, None, "é"]}
    content = json.dumps(plain, indent=7).encode() + b"\n\n"
    for blob in ONE.blobs:
        repo.upload(blob)
    assert repo.put("v1", content).status == 201
    assert repo.ask("GET", "manifests/v1").body == content


def test_docker_schema_2(repo: Repository) -> None:
    """docker 20.10 pushes schema 2 manifests; the type is that which was pushed."""
    plain = json.loads(ONE.content) | {"mediaType": manifest.DOCKER_MANIFEST}
    for blob in ONE.blobs:
        repo.upload(blob)
    assert repo.put("v1", json.dumps(plain).encode(), kind=manifest.DOCKER_MANIFEST).status == 201
    answer = repo.ask("GET", "manifests/v1", headers={"Accept": f"x/y, {manifest.DOCKER_MANIFEST}"})
    assert answer.headers["Content-Type"] == manifest.DOCKER_MANIFEST


def test_put_by_digest(repo: Repository) -> None:
    """OCI distribution § pushing manifests: the digest in the path is that of the body."""
    before = repo.registry.files()
    assert repo.put(ABSENT, ONE.content).refused(400, "DIGEST_INVALID")
    assert repo.registry.files() == before
    for blob in ONE.blobs:
        repo.upload(blob)
    assert repo.put(ONE.digest, ONE.content).status == 201
    assert repo.ask("GET", f"manifests/{ONE.digest}").body == ONE.content
    assert repo.ask("GET", "tags/list").json["tags"] == []


def test_put_by_sha512(repo: Repository) -> None:
    """OCI image § registered algorithms: a manifest may be pushed and pulled by SHA-512."""
    for blob in ONE.blobs:
        repo.upload(blob)
    digest = Digest.of(ONE.content, algorithm="sha512")
    answer = repo.put(digest, ONE.content)
    assert answer.status == 201
    assert answer.headers["Docker-Content-Digest"] == str(digest)
    fetched = repo.ask("GET", f"manifests/{digest}")
    assert (fetched.body, fetched.headers["Docker-Content-Digest"]) == (ONE.content, str(digest))


def test_manifests_that_are_not_there(repo: Repository) -> None:
    """OCI distribution § pulling manifests: 404 MANIFEST_UNKNOWN by tag and by digest."""
    for reference in ("v1", ABSENT):
        assert repo.ask("GET", f"manifests/{reference}").refused(404, "MANIFEST_UNKNOWN")
        assert repo.ask("HEAD", f"manifests/{reference}").status == 404
        assert repo.ask("DELETE", f"manifests/{reference}").refused(404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize("reference", [".x", "t" * 129, "sha256:12", "a b"])
def test_references_that_are_none(repo: Repository, reference: str) -> None:
    """OCI distribution § pulling manifests: a bad tag or digest is refused."""
    answer = repo.put(reference.replace(" ", "%20"), ONE.content)
    assert answer.refused(400, "NAME_INVALID", "DIGEST_INVALID")


def test_a_missing_child(repo: Repository, registry: Registry) -> None:
    """Invariant 2: 404 MANIFEST_BLOB_UNKNOWN; no tag, no blob, no repository."""
    registry.repository(f"{repo.name}-2").push(TWO)
    content = json.dumps(json.loads(TWO.content) | {"annotations": {"x": repo.name}}).encode()
    before = registry.files()
    assert repo.put("v1", content).refused(404, "MANIFEST_BLOB_UNKNOWN")
    assert registry.files() == before
    assert repo.ask("GET", "tags/list").refused(404, "NAME_UNKNOWN")
    row = described(TWO.content)
    answer = repo.put("v1", index_of(row), kind=manifest.OCI_INDEX)
    assert answer.refused(404, "MANIFEST_BLOB_UNKNOWN")
    assert registry.files() == before


def test_an_index(repo: Repository) -> None:
    """OCI image § index: once its manifests are there it is taken and given back."""
    repo.push(ONE)
    content = index_of(described(ONE.content))
    assert repo.put("all", content, kind=manifest.OCI_INDEX).status == 201
    answer = repo.ask("GET", "manifests/all")
    assert (answer.body, answer.headers["Content-Type"]) == (content, manifest.OCI_INDEX)


def test_layers_that_need_not_exist(repo: Repository) -> None:
    """OCI image § non-distributable layers: a registry takes the manifest without them."""
    plain = json.loads(ONE.content)
    plain["layers"].append(
        {
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "digest": str(ABSENT),
            "size": 5,
        }
    )
    for blob in ONE.blobs:
        repo.upload(blob)
    assert repo.put("v1", json.dumps(plain).encode()).status == 201


def bad_manifest(**more: Any) -> bytes:
    """A manifest that has *more* keys than it may."""
    return json.dumps(json.loads(ONE.content) | more).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"schemaVersion":2,"schemaVersion":2}',
        b'{"schemaVersion":2,"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
        bad_manifest(manifests=[]),
        bad_manifest(mediaType=manifest.OCI_INDEX),
        bad_manifest(mediaType=manifest.DOCKER_MANIFEST),
        bad_manifest(schemaVersion=1),
        bad_manifest(layers=[{"mediaType": "x", "digest": str(DIGEST), "size": -1}]),
        bad_manifest(x=float("nan")),
        bad_manifest(artifactType="\ud800"),
        bad_manifest(annotations={"\ud800": "x"}),
    ],
)
def test_bad_manifests(repo: Repository, content: bytes) -> None:
    """CVE-2021-41190, JSON bombs: 400 MANIFEST_INVALID, nothing stored."""
    for blob in ONE.blobs:
        repo.upload(blob)
    before = repo.registry.files()
    assert repo.put("v1", content).refused(400, "MANIFEST_INVALID")
    assert repo.registry.files() == before
    assert repo.ask("GET", "tags/list").json["tags"] == []


@pytest.mark.parametrize("which", ["config", "layers"])
def test_a_size_that_is_wrong(repo: Repository, which: str) -> None:
    """Bad input § size mismatch: 400 SIZE_INVALID, nothing stored."""
    for blob in ONE.blobs:
        repo.upload(blob)
    before = repo.registry.files()
    size = len(ONE.config if which == "config" else ONE.layers[0])
    content = ONE.content.replace(b'"size":%d' % size, b'"size":7', 1)
    assert repo.put("v1", content).refused(400, "SIZE_INVALID")
    assert repo.registry.files() == before
    assert repo.ask("GET", "tags/list").json["tags"] == []


def test_errors_quote_little(repo: Repository) -> None:
    """Bad input: an answer tells what is wrong in a line, however long or odd the thing is."""
    answer = repo.put("v1", bad_manifest(mediaType="\x1b]0;" + "x" * 1_000_000))
    assert answer.refused(400, "MANIFEST_INVALID")
    message = answer.json["errors"][0]["message"]
    assert r"\x1b]0;xxx" in message
    assert message.isprintable()
    assert len(message) <= 1000


RAW = {
    "nothing": b"\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "path not in ASCII": b"GET /v2/\xff\xfe/tags/list HTTP/1.1\r\nHost: x\r\n\r\n",
    "percent without digits": b"GET /v2/%zz%/tags/list HTTP/1.1\r\nHost: x\r\n\r\n",
    "percent not in UTF-8": b"GET /v2/%ff%c0%af/tags/list HTTP/1.1\r\nHost: x\r\n\r\n",
    "zero in the path": b"GET /v2/a%00/blobs/sha256:x HTTP/1.1\r\nHost: x\r\n\r\n",
    "address for a path": b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
    "two lengths": b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\n"
    b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "length and chunks": b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\n"
    b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    "negative length": b"POST /v2/_docket/gc HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "absurd chunk": b"POST /v2/_docket/gc HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"ffffffffffffffffff\r\n{}",
    "header not in ASCII": b"GET /v2/ HTTP/1.1\r\nHost: \xff\r\nRange: \xb2\xb3\r\n\r\n",
    "many headers": b"GET /v2/ HTTP/1.1\r\n" + b"".join(b"h%d: x\r\n" % n for n in range(5000)),
    "endless line": b"GET /" + b"a" * 300_000,
}


@pytest.mark.parametrize("kind", RAW)
def test_bytes_that_are_hardly_http(registry: Registry, kind: str) -> None:
    """Bad input: an answer that is no fault of the server's, or none; and the registry lives on.

    What it would write on standard error is found when it ends.
    """
    before = registry.files()
    host = urlsplit(registry.url)
    with socket.create_connection((host.hostname or "", host.port or 0), timeout=30) as client:
        with contextlib.suppress(OSError):  # closed already
            client.sendall(RAW[kind])
            client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            assert not client.recv(1 << 16).startswith(b"HTTP/1.1 5")
    assert registry.ask("GET", "/v2/").status == 200
    assert registry.files() == before


def test_manifests_of_four_mebibytes(repo: Repository) -> None:
    """OCI distribution § pushing manifests: 4 MiB are taken, more is 413, nothing stored."""
    for blob in ONE.blobs:
        repo.upload(blob)
    room = manifest.MAX_MANIFEST - len(bad_manifest(annotations={"x": ""}))
    largest = bad_manifest(annotations={"x": "y" * room})
    assert repo.put("large", largest).status == 201
    assert repo.ask("GET", "manifests/large").body == largest
    before = repo.registry.files()
    assert repo.put("larger", largest + b" ").refused(413, "SIZE_INVALID")
    assert repo.registry.files() == before


def test_delete_a_tag(repo: Repository) -> None:
    """OCI distribution § deleting tags: 202, then 404 at once; the manifest stays by digest."""
    repo.push(ONE, "v1")
    assert repo.ask("DELETE", "manifests/v1").status == 202
    assert repo.ask("GET", "manifests/v1").refused(404, "MANIFEST_UNKNOWN")
    assert repo.ask("DELETE", "manifests/v1").refused(404, "MANIFEST_UNKNOWN")
    assert repo.ask("GET", f"manifests/{ONE.digest}").status == 200


def test_delete_a_manifest(repo: Repository) -> None:
    """OCI distribution § deleting manifests: 202, then it and its tags are 404 at once."""
    repo.push(ONE, "v1")
    repo.push(TWO, "v2")
    assert repo.ask("DELETE", f"manifests/{ONE.digest}").status == 202
    for reference in ("v1", ONE.digest):
        assert repo.ask("GET", f"manifests/{reference}").refused(404, "MANIFEST_UNKNOWN")
    assert repo.ask("GET", f"blobs/{ONE.digest}").refused(404, "BLOB_UNKNOWN")
    assert repo.ask("GET", "tags/list").json["tags"] == ["v2"]


# -- lists


def next_page(answer: Answer) -> str:
    """The path in a Link header."""
    link = answer.headers["Link"]
    assert link.startswith("</v2/")
    assert link.endswith('>; rel="next"')
    return link[1 : link.index(">")]


def test_tags(repo: Repository) -> None:
    """OCI distribution § listing tags: sorted; n, last and Link page through all of them."""
    names = ["1.0", "1.10", "1.9", "Z", "_x", "a", "latest"]
    for name in reversed(names):
        repo.push(ONE, name)
    answer = repo.ask("GET", "tags/list")
    assert answer.json == {"name": repo.name, "tags": names}
    assert "Link" not in answer.headers
    listed: list[str] = []
    path = f"/v2/{repo.name}/tags/list?n=3"
    while path:
        answer = repo.registry.ask("GET", path)
        assert len(answer.json["tags"]) <= 3
        listed += answer.json["tags"]
        path = next_page(answer) if "Link" in answer.headers else ""
    assert listed == names
    assert repo.ask("GET", "tags/list", n=7).headers.get("Link") is None
    assert repo.ask("GET", "tags/list", last="1.9").json["tags"] == names[3:]
    assert repo.ask("GET", "tags/list", last="1.95", n=1).json["tags"] == ["Z"]
    assert repo.ask("GET", "tags/list", last="zzz").json["tags"] == []


def test_no_tags_asked_for(repo: Repository) -> None:
    """OCI distribution § listing tags: n=0 is an empty list without a Link."""
    repo.push(ONE)
    answer = repo.ask("GET", "tags/list", n=0)
    assert (answer.status, answer.json["tags"]) == (200, [])
    assert "Link" not in answer.headers


@pytest.mark.parametrize("n", ["-1", "x", "1.5", "", "²"])
def test_a_count_that_is_none(repo: Repository, n: str) -> None:
    """CVE-2023-2253: n is a count; nonsense is 400, not an unbounded list."""
    repo.push(ONE)
    assert repo.ask("GET", "tags/list", n=n).status == 400
    assert repo.registry.ask("GET", "/v2/_catalog", n=n).status == 400


@pytest.mark.parametrize("n", [10**6, 10**18, 10**300])
def test_a_count_that_is_large(repo: Repository, n: int) -> None:
    """CVE-2023-2253: the registry, not the client, says how much is listed at most."""
    repo.push(ONE)
    assert repo.ask("GET", "tags/list", n=n).json["tags"] == ["latest"]
    assert repo.registry.ask("GET", "/v2/_catalog", n=n).status == 200


@pytest.mark.parametrize("last", ["x" * 5000, "a\0b", "\udcff".encode("utf-8", "surrogatepass")])
def test_a_last_that_is_no_name(repo: Repository, last: object) -> None:
    """Bad input § pagination: whatever *last* is, the answer is a list."""
    repo.push(ONE)
    assert repo.ask("GET", "tags/list", last=last).status == 200
    assert repo.registry.ask("GET", "/v2/_catalog", last=last).status == 200


def test_tags_of_an_unknown_repository(repo: Repository) -> None:
    """OCI distribution § listing tags: 404 NAME_UNKNOWN."""
    assert repo.ask("GET", "tags/list").refused(404, "NAME_UNKNOWN")


def test_catalog(repo: Repository, registry: Registry) -> None:
    """The catalog lists repositories, sorted, page by page."""
    names = [f"{repo.name}{suffix}" for suffix in ("", "-b", "/a", "/b")]
    for name in names:
        registry.repository(name).push(ONE)
    everything = registry.ask("GET", "/v2/_catalog").json["repositories"]
    assert everything == sorted(everything)
    assert [name for name in everything if name.startswith(repo.name)] == sorted(names)
    listed: list[str] = []
    path = "/v2/_catalog?n=2"
    while path:
        answer = registry.ask("GET", path)
        listed += answer.json["repositories"]
        path = next_page(answer) if "Link" in answer.headers else ""
    assert listed == everything


# -- referrers


def artifact(seed: str, subject: bytes, kind: str = "text/x-signature") -> bytes:
    """A manifest without layers whose subject is *subject*."""
    return manifest.dump(
        {
            "schemaVersion": 2,
            "mediaType": manifest.OCI_MANIFEST,
            "artifactType": kind,
            "config": described(b"{}", manifest.OCI_EMPTY).to_json(),
            "layers": [],
            "subject": described(subject).to_json(),
            "annotations": {"seed": seed},
        }
    )


def test_referrers(repo: Repository) -> None:
    """OCI distribution § listing referrers: an index of all, though the subject is missing."""
    repo.upload(b"{}")
    contents = [artifact("1", ONE.content), artifact("2", ONE.content, "text/x-sbom")]
    for content in contents:
        answer = repo.put(Digest.of(content), content)
        assert answer.status == 201
        assert answer.headers["OCI-Subject"] == str(ONE.digest)
    answer = repo.ask("GET", f"referrers/{ONE.digest}")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == manifest.OCI_INDEX
    assert "OCI-Filters-Applied" not in answer.headers
    assert answer.json["mediaType"] == manifest.OCI_INDEX
    rows = {row["digest"]: row for row in answer.json["manifests"]}
    assert rows.keys() == {str(Digest.of(content)) for content in contents}
    row = rows[str(Digest.of(contents[0]))]
    assert row["artifactType"] == "text/x-signature"
    assert row["size"] == len(contents[0])
    assert row["mediaType"] == manifest.OCI_MANIFEST
    assert row["annotations"] == {"seed": "1"}


def test_referrers_of_a_type(repo: Repository) -> None:
    """OCI distribution § listing referrers: artifactType filters, and the answer says so."""
    repo.upload(b"{}")
    wanted = artifact("1", ONE.content, "text/x-sbom")
    for content in (wanted, artifact("2", ONE.content)):
        repo.put(Digest.of(content), content)
    answer = repo.ask("GET", f"referrers/{ONE.digest}", artifactType="text/x-sbom")
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"
    assert [row["digest"] for row in answer.json["manifests"]] == [str(Digest.of(wanted))]
    none = repo.ask("GET", f"referrers/{ONE.digest}", artifactType="x").json["manifests"]
    assert none == []


def test_no_referrers(repo: Repository) -> None:
    """OCI distribution § listing referrers: an empty index, never 404; deleted ones are gone."""
    answer = repo.ask("GET", f"referrers/{ABSENT}")
    assert (answer.status, answer.json["manifests"]) == (200, [])
    repo.upload(b"{}")
    content = artifact("1", ONE.content)
    repo.put(Digest.of(content), content)
    repo.ask("DELETE", f"manifests/{Digest.of(content)}")
    assert repo.ask("GET", f"referrers/{ONE.digest}").json["manifests"] == []


# -- all else


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "nothing/here", 404),
        ("POST", "manifests/v1", 405),
        ("PUT", "tags/list", 405),
        ("DELETE", "blobs/uploads/", 405),
    ],
)
def test_calls_that_are_none(repo: Repository, method: str, path: str, status: int) -> None:
    """OCI distribution § error codes: other paths and methods are errors in the same shape."""
    assert repo.ask(method, path).refused(status, "NAME_UNKNOWN", "UNSUPPORTED")


def test_paths_that_climb(registry: Registry) -> None:
    """Invariant 5: nothing from outside names a path."""
    address = urlsplit(registry.url)
    for path in (
        "/v2/a/blobs/sha256:../../../VERSION",
        "/v2/../../VERSION",
        "/v2/a/blobs/..%2f..%2fVERSION",
        "/torrents/../../VERSION.torrent",
    ):
        connection = http.client.HTTPConnection(str(address.hostname), address.port)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status in (400, 404)
        assert b"piece_length" not in answer.read()
        connection.close()
