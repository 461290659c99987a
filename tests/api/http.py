"""How the tests talk to a registry: plain HTTP, as a client of the OCI API would."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin

import urllib3
from urllib3 import HTTPHeaderDict

from docket.oci import manifest
from docket.oci.digest import Digest
from tests.store.samples import Image

Body = bytes | Iterable[bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; *json* reads its body."""

    status: int
    headers: HTTPHeaderDict
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.body)

    def refused(self, status: int, *codes: str) -> bool:
        """OCI distribution § error codes: whether this is that error, in its JSON shape."""
        assert self.status == status, (self.status, self.body)
        assert self.headers["Content-Type"] == "application/json"
        (error,) = self.json["errors"]
        assert error.keys() == {"code", "message", "detail"}
        assert error["message"]
        assert error["code"] in codes, error
        return True


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry process and the folder of its store."""

    url: str
    location: Path
    pool: urllib3.PoolManager
    pid: int = 0

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        **query: object,
    ) -> Answer:
        """Send a request; *path* may be a Location. Bodies of docket's own calls are JSON."""
        if headers is None and "/_docket/" in path:
            headers = {"Content-Type": "application/json"}
        address = urljoin(self.url, path)
        if query:
            address += ("&" if "?" in address else "?") + urlencode(query)
        response = self.pool.request(
            method,
            address,
            body=body,
            headers=headers,
            redirect=False,
            decode_content=False,
        )
        return Answer(response.status, response.headers, response.data)

    def repository(self, name: str) -> Repository:
        """The repository *name*."""
        return Repository(self, name)

    def files(self) -> set[str]:
        """All files of the store but those of the index."""
        return {
            str(path.relative_to(self.location))
            for name in ("blobs", "uploads", "incoming", "trash", "quarantine")
            for path in (self.location / name).rglob("*")
            if path.is_file()
        }


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository of a registry."""

    registry: Registry
    name: str

    def ask(self, method: str, path: str, **more: Any) -> Answer:
        """Send a request to a path below ``/v2/<name>/``."""
        return self.registry.ask(method, f"/v2/{self.name}/{path}", **more)

    def begin(self) -> str:
        """The Location of a new upload session."""
        answer = self.ask("POST", "blobs/uploads/")
        assert answer.status == 202
        return answer.headers["Location"]

    def upload(self, content: bytes) -> Digest:
        """Upload a blob."""
        digest = Digest.of(content)
        answer = self.ask("POST", "blobs/uploads/", digest=digest, body=content)
        assert answer.status == 201, answer
        return digest

    def put(
        self, reference: object, content: bytes, *, kind: str = manifest.OCI_MANIFEST
    ) -> Answer:
        """PUT a manifest."""
        return self.ask(
            "PUT", f"manifests/{reference}", body=content, headers={"Content-Type": kind}
        )

    def push(self, image: Image, tag: str = "latest") -> Digest:
        """Push an image."""
        for blob in image.blobs:
            self.upload(blob)
        answer = self.put(tag, image.content)
        assert answer.status == 201, answer
        return image.digest
