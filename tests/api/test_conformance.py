"""OCI distribution 1.1, scenario by scenario, over HTTP against a real registry process.

Written from the specification's text; each test's docstring names the paragraph it holds. The four
groups are the specification's workflow categories: pull, push, content discovery, management.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import urllib3

from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor
from tests.support.commands import registry

REPOSITORY = "conformance/app"
ABSENT = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True)
class Api:
    """Requests to a registry, relative to its URL."""

    url: str
    pool: urllib3.PoolManager

    def __call__(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> urllib3.BaseHTTPResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.pool.request(
            method, urljoin(self.url, path), body=body, headers=named, redirect=False
        )

    def begin(self, repository: str = REPOSITORY) -> str:
        """A new upload session's location."""
        answer = self("POST", f"/v2/{repository}/blobs/uploads/")
        assert answer.status == 202
        return answer.headers["Location"]

    def blob(self, content: bytes, repository: str = REPOSITORY) -> Digest:
        """Upload *content* in the two requests of § pushing a blob monolithically."""
        digest = Digest.of(content)
        answer = self("PUT", f"{self.begin(repository)}?digest={digest}", content)
        assert answer.status == 201, answer.data
        return digest

    def image(self, seed: bytes, repository: str = REPOSITORY) -> bytes:
        """Upload the blobs of a small image; its manifest."""
        layer, config = b"layer " + seed, b'{"config": "' + seed + b'"}'
        return manifest.image_manifest(
            Descriptor(manifest.OCI_CONFIG, self.blob(config, repository), len(config)),
            [Descriptor(manifest.OCI_LAYER, self.blob(layer, repository), len(layer))],
        )

    def put(self, reference: object, content: bytes, **options: str) -> Any:
        """Push a manifest."""
        media_type = options.get("media_type", manifest.OCI_MANIFEST)
        repository = options.get("repository", REPOSITORY)
        path = f"/v2/{repository}/manifests/{reference}"
        return self("PUT", path, content, Content_Type=media_type)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A registry process for all tests of this module."""
    folder = tmp_path_factory.mktemp("conformance")
    with registry(folder / "registry") as url, urllib3.PoolManager(retries=False) as pool:
        yield Api(url, pool)


def codes(answer: urllib3.BaseHTTPResponse) -> list[str]:
    """The error codes in an answer (§ error codes: the body's format)."""
    errors = json.loads(answer.data)["errors"]
    assert all({"code", "message", "detail"} >= set(error) for error in errors)
    return [error["code"] for error in errors]


# -- § pull


def test_support_is_told_at_v2(api: Api) -> None:
    """§ determining support: GET /v2/ MUST be 200."""
    answer = api("GET", "/v2/")
    assert answer.status == 200
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


def test_manifest_by_tag_and_digest(api: Api) -> None:
    """§ pulling manifests: by tag or digest, the exact bytes, their type and digest."""
    content = api.image(b"pull")
    digest = Digest.of(content)
    assert api.put("pull", content).status == 201
    for reference in ("pull", digest):
        for method in ("GET", "HEAD"):
            answer = api(method, f"/v2/{REPOSITORY}/manifests/{reference}")
            assert answer.status == 200
            assert answer.headers["Docker-Content-Digest"] == str(digest)
            assert answer.headers["Content-Type"] == manifest.OCI_MANIFEST
            assert answer.headers["Content-Length"] == str(len(content))
            assert answer.data == (content if method == "GET" else b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_is_not_there_is_404(api: Api, method: str) -> None:
    """§ pulling manifests, § pulling blobs: an unknown one MUST be 404."""
    for path in (f"manifests/{ABSENT}", "manifests/nothing", f"blobs/{ABSENT}"):
        assert api(method, f"/v2/{REPOSITORY}/{path}").status == 404
    assert api(method, f"/v2/nowhere/at/all/manifests/{ABSENT}").status == 404


def test_blob_whole_and_by_range(api: Api) -> None:
    """§ pulling blobs: GET and HEAD 200; a Range (RFC 9110) gives that part."""
    content = bytes(range(256)) * 20
    digest = api.blob(content)
    path = f"/v2/{REPOSITORY}/blobs/{digest}"
    whole = api("GET", path)
    assert (whole.status, whole.data) == (200, content)
    assert whole.headers["Docker-Content-Digest"] == str(digest)
    head = api("HEAD", path)
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(content)))
    for spec, start, end in (
        ("0-0", 0, 1),
        ("10-19", 10, 20),
        ("5000-", 5000, 5120),
        ("5000-99999", 5000, 5120),
        ("-20", 5100, 5120),
    ):
        part = api("GET", path, Range=f"bytes={spec}")
        assert (part.status, part.data) == (206, content[start:end]), spec
        assert part.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(content)}"
    for spec in ("5120-", "500-0", "99999-100000", "-0"):
        beyond = api("GET", path, Range=f"bytes={spec}")
        assert (beyond.status, beyond.headers["Content-Range"]) == (416, "bytes */5120"), spec
    several = api("GET", path, Range="bytes=0-1,5-6")
    assert (several.status, several.data) == (200, content)
    assert "Content-Encoding" not in api("GET", path, Accept_Encoding="zstd, gzip").headers


def test_error_bodies(api: Api) -> None:
    """§ error codes: JSON with code and message, and the codes of the table."""
    assert codes(api("GET", f"/v2/{REPOSITORY}/blobs/{ABSENT}")) == ["BLOB_UNKNOWN"]
    assert codes(api("GET", f"/v2/{REPOSITORY}/manifests/none")) == ["MANIFEST_UNKNOWN"]
    assert codes(api("GET", f"/v2/{REPOSITORY}/blobs/sha256:xyz")) == ["DIGEST_INVALID"]
    assert codes(api("GET", "/v2/UPPER/tags/list")) == ["NAME_INVALID"]
    assert codes(api("GET", "/v2/nowhere/tags/list")) == ["NAME_UNKNOWN"]


# -- § push


def test_blob_in_one_post(api: Api) -> None:
    """§ single POST: 201 with Location; the blob can be pulled there."""
    content = b"single post"
    path = f"/v2/{REPOSITORY}/blobs/uploads/?digest={Digest.of(content)}"
    answer = api("POST", path, content, Content_Type="application/octet-stream")
    assert answer.status == 201
    assert api("GET", answer.headers["Location"]).data == content


def test_blob_by_post_then_put(api: Api) -> None:
    """§ POST then PUT: 202 with Location, then 201 with the blob's Location."""
    content = b"post then put"
    answer = api("PUT", f"{api.begin()}?digest={Digest.of(content)}", content)
    assert answer.status == 201
    assert answer.headers["Docker-Content-Digest"] == str(Digest.of(content))
    assert api("GET", answer.headers["Location"]).data == content


def test_blob_in_chunks(api: Api) -> None:
    """§ pushing a blob in chunks: ranges in order, status, the last chunk in the PUT."""
    content = b"0123456789" * 30
    location = api.begin()
    first = api("PATCH", location, content[:100], Content_Range="0-99")
    assert (first.status, first.headers["Range"]) == (202, "0-99")
    status = api("GET", first.headers["Location"])
    assert (status.status, status.headers["Range"]) == (204, "0-99")
    second = api("PATCH", status.headers["Location"], content[100:200], Content_Range="100-199")
    assert (second.status, second.headers["Range"]) == (202, "0-199")
    path = f"{second.headers['Location']}?digest={Digest.of(content)}"
    last = api("PUT", path, content[200:], Content_Range="200-299")
    assert last.status == 201
    assert api("GET", last.headers["Location"]).data == content


def test_chunk_out_of_order(api: Api) -> None:
    """§ pushing a blob in chunks: out of order MUST be 416; the upload goes on where it was."""
    content = b"abcdefghij"
    location = api.begin()
    assert api("PATCH", location, content[5:], Content_Range="5-9").status == 416
    api("PATCH", location, content[:5], Content_Range="0-4")
    again = api("PATCH", location, content[:5], Content_Range="0-4")
    assert again.status == 416
    assert again.headers["Range"] == "0-4"
    assert again.headers["Location"]
    api("PATCH", location, content[5:], Content_Range="5-9")
    assert api("PUT", f"{location}?digest={Digest.of(content)}").status == 201


def test_streamed_upload(api: Api) -> None:
    """§ streamed: a PATCH without Content-Range, then an empty PUT, as docker 20.10 does."""
    content = b"streamed " * 1000
    location = api.begin()
    sent = api("PATCH", location, content)
    assert sent.status == 202
    assert api("PUT", f"{sent.headers['Location']}?digest={Digest.of(content)}").status == 201


def test_upload_can_be_cancelled(api: Api) -> None:
    """§ cancelling an upload: DELETE is 204, and the session is gone."""
    location = api.begin()
    assert api("GET", location).status == 204
    assert api("DELETE", location).status == 204
    for method in ("GET", "PATCH", "DELETE"):
        answer = api(method, location, b"x" if method == "PATCH" else None)
        assert answer.status == 404
        assert codes(answer) == ["BLOB_UPLOAD_UNKNOWN"]


def test_upload_is_bound_to_its_repository(api: Api) -> None:
    """A session can't be used through another repository."""
    location = api.begin().replace(REPOSITORY, "some/other")
    assert api("GET", location).status == 404


def test_wrong_digest_is_refused(api: Api) -> None:
    """§ error codes: DIGEST_INVALID when the bytes have another digest; nothing is stored."""
    answer = api("PUT", f"{api.begin()}?digest={ABSENT}", b"other bytes")
    assert answer.status == 400
    assert codes(answer) == ["DIGEST_INVALID"]
    assert api("HEAD", f"/v2/{REPOSITORY}/blobs/{ABSENT}").status == 404
    assert api("PUT", f"{api.begin()}?digest=nonsense", b"x").status == 400
    assert api("PUT", api.begin(), b"x").status == 400


def test_mount(api: Api) -> None:
    """§ mounting a blob: 201 where ``from`` has it, else 202 with an upload session."""
    content = b"to be mounted"
    digest = api.blob(content, "mount/source")
    uploads = "/v2/mount/target/blobs/uploads/"
    mounted = api("POST", f"{uploads}?mount={digest}&from=mount/source")
    assert mounted.status == 201
    assert api("GET", mounted.headers["Location"]).data == content
    assert api("HEAD", f"/v2/mount/elsewhere/blobs/{digest}").status == 404
    refused = api("POST", f"{uploads}?mount={ABSENT}&from=mount/source")
    assert refused.status == 202
    assert api("DELETE", refused.headers["Location"]).status == 204
    anywhere = api("POST", f"/v2/mount/third/blobs/uploads/?mount={digest}")
    assert anywhere.status in (201, 202)


def test_manifest_push(api: Api) -> None:
    """§ pushing manifests: 201, Location, by tag and by digest; up to 4 MiB."""
    content = api.image(b"push")
    digest = Digest.of(content)
    tagged = api.put("pushed", content)
    assert tagged.status == 201
    assert api("GET", tagged.headers["Location"]).data == content
    assert api.put(digest, content).status == 201
    second_put = api.put(ABSENT, content)
    assert (second_put.status, codes(second_put)) == (400, ["DIGEST_INVALID"])
    plain = json.loads(content)
    plain["annotations"] = {"large": "x" * (4_000_000 - len(content))}
    assert api.put("large", manifest.dump(plain)).status == 201
    plain["annotations"] = {"large": "x" * (4 << 20)}
    assert api.put("larger", manifest.dump(plain)).status == 413


def test_push_by_digest_may_ask_for_tags(api: Api) -> None:
    """The draft behind 1.1: ``?tag=`` names tags of a push by digest, each told by OCI-Tag."""
    content = api.image(b"many tags")
    digest = Digest.of(content)
    pushed = api.put(f"{digest}?tag=many-1&tag=many-2", content)
    assert pushed.status == 201
    assert pushed.headers.getlist("OCI-Tag") == ["many-1", "many-2"]
    for tag in ("many-1", "many-2"):
        assert api("GET", f"/v2/{REPOSITORY}/manifests/{tag}").data == content
    assert api.put(f"{digest}?tag=no%20tag", content).status == 400


def test_manifest_with_a_missing_blob(api: Api) -> None:
    """§ pushing manifests: a blob that isn't there MUST be refused: 404 MANIFEST_BLOB_UNKNOWN."""
    plain = json.loads(api.image(b"lacking"))
    plain["layers"][0]["digest"] = ABSENT
    answer = api.put("lacking", manifest.dump(plain))
    assert (answer.status, codes(answer)) == (404, ["MANIFEST_BLOB_UNKNOWN"])
    assert api("HEAD", f"/v2/{REPOSITORY}/manifests/lacking").status == 404


def test_non_distributable_layers_need_not_exist(api: Api) -> None:
    """Layers that registries needn't have are not asked for at manifest PUT."""
    plain = json.loads(api.image(b"foreign"))
    plain["layers"].append(
        {
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "digest": ABSENT,
            "size": 10,
        }
    )
    assert api.put("foreign", manifest.dump(plain)).status == 201


@pytest.mark.parametrize(
    ("change", "media_type"),
    [
        ({"manifests": []}, manifest.OCI_MANIFEST),
        ({"mediaType": manifest.OCI_INDEX}, manifest.OCI_MANIFEST),
        ({"layers": "none"}, manifest.OCI_MANIFEST),
        ({"config": None}, manifest.OCI_MANIFEST),
        ({"schemaVersion": 1}, manifest.OCI_MANIFEST),
        ({}, "text/plain"),
    ],
)
def test_confusing_manifests_are_refused(api: Api, change: dict[str, Any], media_type: str) -> None:
    """CVE-2021-41190: a document is one kind, and the one that it came as: MANIFEST_INVALID."""
    plain = json.loads(api.image(b"confusing")) | change
    answer = api.put("confusing", manifest.dump(plain), media_type=media_type)
    assert (answer.status, codes(answer)) == (400, ["MANIFEST_INVALID"])


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"schemaVersion":2,"schemaVersion":2}', b"[" * 100_000, b"\xff\xfe"],
)
def test_json_that_is_none_is_refused(api: Api, content: bytes) -> None:
    """Broken JSON, duplicate keys and deep nesting are 400 MANIFEST_INVALID."""
    answer = api.put("broken", content)
    assert (answer.status, codes(answer)) == (400, ["MANIFEST_INVALID"])


def test_index_and_nested_index(api: Api) -> None:
    """§ pushing manifests: indexes, nested too; their children must be there."""
    content = api.image(b"platform")
    api.put(Digest.of(content), content)
    index = manifest.image_index(
        [Descriptor(manifest.OCI_MANIFEST, Digest.of(content), len(content))]
    )
    assert api.put("index", index, media_type=manifest.OCI_INDEX).status == 201
    nested = manifest.image_index([Descriptor(manifest.OCI_INDEX, Digest.of(index), len(index))])
    assert api.put("nested", nested, media_type=manifest.OCI_INDEX).status == 201
    lacking = manifest.image_index([Descriptor(manifest.OCI_MANIFEST, Digest.parse(ABSENT), 10)])
    assert api.put("lacking", lacking, media_type=manifest.OCI_INDEX).status == 404


def test_sha512(api: Api) -> None:
    """§ digests: other registered algorithms MAY be used; docket takes sha512 throughout."""
    content = b"by sha512"
    digest = Digest.of(content, algorithm="sha512")
    pushed = api("PUT", f"{api.begin()}?digest={digest}", content)
    assert pushed.status == 201
    assert api("GET", f"/v2/{REPOSITORY}/blobs/{digest}").data == content
    image = api.image(b"sha512")
    name = Digest.of(image, algorithm="sha512")
    assert api.put(name, image).status == 201
    answer = api("GET", f"/v2/{REPOSITORY}/manifests/{name}")
    assert (answer.data, answer.headers["Docker-Content-Digest"]) == (image, str(name))


# -- § content discovery


def test_tags_are_sorted_and_paged(api: Api) -> None:
    """§ listing tags: lexical order, n and last, Link to the next page; n=0 is empty."""
    content = api.image(b"tags", "tags/app")
    tags = ["1.0", "1.1", "2.0", "Latest", "a", "b"]
    for tag in reversed(tags):
        assert api.put(tag, content, repository="tags/app").status == 201
    path = "/v2/tags/app/tags/list"
    whole = json.loads(api("GET", path).data)
    assert whole == {"name": "tags/app", "tags": tags}
    page = api("GET", f"{path}?n=2")
    assert json.loads(page.data)["tags"] == tags[:2]
    following = page.headers["Link"].partition("<")[2].partition(">")[0]
    assert json.loads(api("GET", following).data)["tags"] == tags[2:4]
    assert json.loads(api("GET", f"{path}?n=2&last=1.1").data)["tags"] == tags[2:4]
    last = api("GET", f"{path}?n=100")
    assert "Link" not in last.headers
    none = api("GET", f"{path}?n=0")
    assert json.loads(none.data)["tags"] == []
    assert "Link" not in none.headers
    assert api("GET", f"{path}?n=-1").status == 400
    assert api("GET", "/v2/nowhere/tags/list").status == 404


def test_referrers(api: Api) -> None:
    """§ listing referrers: an index, never 404; filtered by type; the subject may be missing."""
    assert api("GET", f"/v2/{REPOSITORY}/referrers/nonsense").status == 400
    empty = api("GET", f"/v2/{REPOSITORY}/referrers/{ABSENT}")
    assert (empty.status, empty.headers["Content-Type"]) == (200, manifest.OCI_INDEX)
    assert json.loads(empty.data)["manifests"] == []
    subject = {"mediaType": manifest.OCI_MANIFEST, "digest": ABSENT, "size": 10}
    digests = {}
    for kind in ("application/x.sbom", "application/x.signature"):
        plain = json.loads(api.image(kind.encode()))
        plain |= {"subject": subject, "artifactType": kind, "annotations": {"kind": kind}}
        content = manifest.dump(plain)
        answer = api.put(Digest.of(content), content)
        assert (answer.status, answer.headers["OCI-Subject"]) == (201, ABSENT)
        digests[kind] = str(Digest.of(content))
    rows = json.loads(api("GET", f"/v2/{REPOSITORY}/referrers/{ABSENT}").data)["manifests"]
    assert {row["artifactType"]: row["digest"] for row in rows} == digests
    assert all(row["annotations"]["kind"] == row["artifactType"] for row in rows)
    kind = "application/x.sbom"
    filtered = api("GET", f"/v2/{REPOSITORY}/referrers/{ABSENT}?artifactType={kind}")
    assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
    assert [manifest["digest"] for manifest in json.loads(filtered.data)["manifests"]] == [
        digests[kind]
    ]
    api("DELETE", f"/v2/{REPOSITORY}/manifests/{digests[kind]}")
    rows = json.loads(api("GET", f"/v2/{REPOSITORY}/referrers/{ABSENT}").data)["manifests"]
    assert [row["artifactType"] for row in rows] == ["application/x.signature"]


def test_artifact_type_falls_back_to_the_config(api: Api) -> None:
    """§ listing referrers: without artifactType, it is the config's media type."""
    plain = json.loads(api.image(b"typed"))
    subject = Digest.of(b"a subject of its own")
    plain["config"]["mediaType"] = "application/x.config"
    plain["subject"] = {"mediaType": manifest.OCI_MANIFEST, "digest": str(subject), "size": 3}
    content = manifest.dump(plain)
    assert api.put(Digest.of(content), content).status == 201
    rows = json.loads(api("GET", f"/v2/{REPOSITORY}/referrers/{subject}").data)["manifests"]
    assert [row["artifactType"] for row in rows] == ["application/x.config"]


def test_catalog(api: Api) -> None:
    """The catalog of older clients: sorted, paged."""
    for name in ("catalog/b", "catalog/a"):
        api.put("1", api.image(b"catalog", name), repository=name)
    names = json.loads(api("GET", "/v2/_catalog").data)["repositories"]
    assert names == sorted(names)
    assert {"catalog/a", "catalog/b"} <= set(names)
    page = api("GET", "/v2/_catalog?n=1&last=catalog/a")
    assert json.loads(page.data)["repositories"] == ["catalog/b"]


# -- § content management


def test_deleting_tags_manifests_and_blobs(api: Api) -> None:
    """§ deleting: 202, and 404 at once; a tag leaves its manifest, a manifest takes its tags."""
    content = api.image(b"delete")
    digest = Digest.of(content)
    for tag in ("one", "two"):
        api.put(tag, content)
    path = f"/v2/{REPOSITORY}/manifests"
    assert api("DELETE", f"{path}/one").status == 202
    assert api("GET", f"{path}/one").status == 404
    assert api("GET", f"{path}/{digest}").status == 200
    assert api("DELETE", f"{path}/{digest}").status == 202
    assert api("GET", f"{path}/{digest}").status == 404
    assert api("GET", f"{path}/two").status == 404
    assert api("DELETE", f"{path}/{digest}").status == 404
    layer = api.blob(b"delete this blob")
    assert api("DELETE", f"/v2/{REPOSITORY}/blobs/{layer}").status == 202
    assert api("GET", f"/v2/{REPOSITORY}/blobs/{layer}").status == 404
    assert api("DELETE", f"/v2/{REPOSITORY}/blobs/{layer}").status == 404


def test_uploads_go_on_after_a_restart(tmp_path: Path) -> None:
    """A session's bytes survive the registry; the rest completes them."""
    content = b"before and after a restart"
    with urllib3.PoolManager(retries=False) as pool:
        with registry(tmp_path / "r") as url:
            api = Api(url, pool)
            location = api.begin()
            assert api("PATCH", location, content[:10]).status == 202
        with registry(tmp_path / "r") as url:
            api = Api(url, pool)
            status = api("GET", location)
            assert (status.status, status.headers["Range"]) == (204, "0-9")
            answer = api("PUT", f"{location}?digest={Digest.of(content)}", content[10:])
            assert answer.status == 201
            assert api("GET", answer.headers["Location"]).data == content
