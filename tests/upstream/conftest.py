"""An upstream registry for each test, and a docket registry that fetches from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3

from docket.oci import manifest
from docket.oci.digest import Digest
from tests.api.conftest import running
from tests.api.http import Registry
from tests.support.images import TinyImage
from tests.support.servers import docker_registry

MB = 1_000_000


class Upstream:
    """A registry that images are pushed to, over plain HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._pool = urllib3.PoolManager(retries=False, timeout=30)

    def push(self, repository: str, tag: str, image: TinyImage) -> Digest:
        """Push *image*, gzip; gives the digest of its manifest."""
        described, blobs = image.blobs("gzip")
        by_digest = {f"sha256:{path.rpartition('/')[2]}": blob for path, blob in blobs.items()}
        content = by_digest.pop(str(described.digest))
        for digest, blob in by_digest.items():
            self.push_blob(repository, digest, blob)
        self.put(repository, tag, content, manifest.OCI_MANIFEST)
        return described.digest

    def push_blob(self, repository: str, digest: str, blob: bytes) -> None:
        """Push one blob."""
        begun = self._pool.request("POST", f"{self.url}/v2/{repository}/blobs/uploads/")
        assert begun.status == 202, begun.data
        location = begun.headers["Location"]
        url = location if "://" in location else f"{self.url}{location}"
        joint = "&" if "?" in url else "?"
        put = self._pool.request("PUT", f"{url}{joint}digest={digest}", body=blob)
        assert put.status == 201, put.data

    def put(self, repository: str, reference: object, content: bytes, media_type: str) -> None:
        """Push a manifest or an index."""
        put = self._pool.request(
            "PUT",
            f"{self.url}/v2/{repository}/manifests/{reference}",
            body=content,
            headers={"Content-Type": media_type},
        )
        assert put.status == 201, put.data

    def delete(self, repository: str, digest: object) -> None:
        """Delete a manifest."""
        url = f"{self.url}/v2/{repository}/manifests/{digest}"
        assert self._pool.request("DELETE", url).status == 202


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """Debian's docker-registry."""
    with docker_registry(tmp_path / "upstream") as server:
        yield Upstream(server.url)


Start = Callable[..., AbstractContextManager[Registry]]


@pytest.fixture
def docket(tmp_path: Path) -> Start:
    """Starts a docket registry with ``--upstream ghcr.io=URL`` and further options."""

    @contextmanager
    def start(
        url: str,
        *options: str,
        name: str = "ghcr.io",
        log_has: str = "",
        pin_seconds: float = 3600,
    ) -> Iterator[Registry]:
        upstream_options = ("--upstream", f"{name}={url}", *options)
        with running(
            tmp_path / "store", *upstream_options, log_has=log_has, pin_seconds=pin_seconds
        ) as registry:
            yield registry

    return start


def pulled(registry: Registry, repository: str, reference: object) -> dict[str, Any]:
    """The manifest of an image, after all of its blobs were read and hashed."""
    answer = registry.ask("GET", f"/v2/{repository}/manifests/{reference}")
    assert answer.status == 200, answer
    plain: dict[str, Any] = json.loads(answer.body)
    for child in (plain["config"], *plain["layers"]):
        blob = registry.ask("GET", f"/v2/{repository}/blobs/{child['digest']}")
        assert blob.status == 200, blob
        assert str(Digest.of(blob.body)) == child["digest"]
    return plain
