"""Manifests of the OCI distribution API 1.1: get, put, delete."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from docket.api.responses import API_VERSION, empty_response, read_body
from docket.api.services import Registry, registry_of, repository_of
from docket.errors import DigestMismatch, InvalidReference
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.reference import is_tag, parse_target
from docket.upstream.upstreams import Served


async def get_manifest(request: Request) -> Response:
    """GET and HEAD a manifest: the exact bytes, and the type that it was pushed as."""
    registry = registry_of(request)
    target, repository = parse_target(request.path_params["reference"]), repository_of(request)
    served = await _served(registry, repository, target)
    stored = served.stored
    headers = {
        **API_VERSION,
        "Docker-Content-Digest": str(stored.digest),
        "Content-Type": stored.media_type,
        "ETag": f'"{stored.digest}"',
    }
    if served.warning:
        # RFC 7234 § 5.5.1: 110 is a stale response
        headers["Warning"] = f'110 docket "{_quoted(served.warning)}"'
    return Response(stored.content, headers=headers)


async def _served(registry: Registry, repository: str, target: str | Digest) -> Served:
    """The manifest; one of an upstream is looked for there only if need be."""
    store, upstreams = registry.store, registry.upstreams
    if upstreams is None or not upstreams.covers(repository):
        return Served(await registry.threads.read(lambda: store.manifests.get(repository, target)))
    known = await registry.threads.read(lambda: upstreams.known(repository, target))
    if known is not None:
        return known
    return await registry.threads.fetch(lambda: upstreams.manifest(repository, target))


def _quoted(text: str) -> str:
    """*text* for a header's quoted string (RFC 9110 § 5.6.4), ASCII alone."""
    plain = text.encode("ascii", "replace").decode()
    return plain.replace("\\", "").replace('"', "'")[:500]


async def put_manifest(request: Request) -> Response:
    """PUT a manifest under a tag or its digest."""
    repository = repository_of(request)
    target = parse_target(request.path_params["reference"])
    content = await read_body(request, limit=manifest.MAX_MANIFEST, what="the manifest")
    content_type = request.headers.get("content-type", "").partition(";")[0].strip()
    algorithm = target.algorithm if isinstance(target, Digest) else "sha256"
    registry = registry_of(request)

    def parsed_and_checked() -> manifest.Manifest | manifest.Index:
        actual = Digest.of(content, algorithm=algorithm)
        if isinstance(target, Digest) and actual != target:
            raise DigestMismatch(target, actual)
        return manifest.parse(content, content_type=content_type)

    parsed = await registry.threads.parse(parsed_and_checked)
    tags = [target] if isinstance(target, str) else _requested_tags(request)
    digest = await registry.threads.write(
        lambda: registry.store.manifests.put(
            repository, content, parsed, tags=tags, algorithm=algorithm
        )
    )
    headers = {
        "Location": f"/v2/{repository}/manifests/{digest}",
        "Docker-Content-Digest": str(digest),
    }
    if parsed.subject:
        headers["OCI-Subject"] = str(parsed.subject.digest)
    response = empty_response(201, headers)
    for tag in tags if isinstance(target, Digest) else []:
        response.headers.append("OCI-Tag", tag)
    return response


async def delete_manifest(request: Request) -> Response:
    """DELETE a tag, or a manifest with its tags."""
    registry = registry_of(request)
    repository, manifests = repository_of(request), registry.store.manifests
    target = parse_target(request.path_params["reference"])
    if isinstance(target, Digest):
        await registry.threads.write(lambda: manifests.delete(repository, target))
    else:
        await registry.threads.write(lambda: manifests.delete_tag(repository, target))
    return empty_response(202, {})


def _requested_tags(request: Request) -> list[str]:
    """The tags of ``?tag=…&tag=…``, which a push by digest may request (a draft behind 1.1)."""
    tags = list(dict.fromkeys(request.query_params.getlist("tag")))
    for tag in tags:
        if not is_tag(tag):
            raise InvalidReference(tag, "a tag is up to 128 letters, digits, _ . and -")
    return tags


ROUTES = [
    Route("/v2/{name:path}/manifests/{reference}", get_manifest, methods=["GET"]),
    Route("/v2/{name:path}/manifests/{reference}", put_manifest, methods=["PUT"]),
    Route("/v2/{name:path}/manifests/{reference}", delete_manifest, methods=["DELETE"]),
]
