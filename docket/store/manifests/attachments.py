"""What is attached to an image: signatures, attestations, SBOMs, referrers; and the tags of these.

A manifest with a ``subject`` is attached to it (OCI image 1.1 § subject). cosign names what it
attaches to a manifest by a tag ``sha256-<hex>.sig``, ``.att`` or ``.sbom`` in the manifest's
repository; clients of registries without a referrers API use ``sha256-<hex>`` (OCI distribution 1.1
§ referrers tag schema, which cuts the hex digits after the 64th). Such tags are no releases: they
stay as long as the manifest that they are attached to, and go with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from docket.oci.digest import Digest
from docket.store.index.environment import Index
from docket.store.index.records import edge, scoped, unscoped
from docket.store.index.tables import Transaction
from docket.store.types import Tagged

_HEX_OF_TAG = 64
_TAG = re.compile(
    r"(?P<algorithm>sha256|sha512)-(?P<hex>[0-9a-f]{128}|[0-9a-f]{64})(?:\.[A-Za-z0-9._-]+)?\Z"
)


def is_attachment_name(tag: Tagged) -> bool:
    """Whether *tag* names another manifest than the one that it points to."""
    match = _TAG.match(tag.tag)
    if match is None:
        return False
    own = tag.digest
    return own.algorithm != match["algorithm"] or not own.hex.startswith(match["hex"])


def is_attachment(index: Index, txn: Transaction, tag: Tagged) -> bool:
    """Whether *tag* is attached to a manifest, by its name or by its own manifest's subject."""
    if is_attachment_name(tag):
        return True
    record = index.manifests.get(txn, scoped(tag.repository, tag.digest))
    return record is not None and bool(record.subject)


def attached_tags(index: Index, txn: Transaction, repository: str, digest: Digest) -> list[str]:
    """The tags of *repository* that are attached to the manifest *digest*, sorted."""
    names = set(_tags_that_name(index, txn, repository, digest))
    for referrer in index.referrers.values(txn, scoped(repository, digest)):
        names.update(tags_of(index, txn, repository, referrer.decode()))
    return sorted(names)


def tags_of(index: Index, txn: Transaction, repository: str, digest: str) -> list[str]:
    """The tags of *repository* that point to *digest*."""
    prefix = edge(repository, "t")
    return [
        value[len(prefix) :].decode()
        for value in index.parents.values(txn, digest.encode(), prefix)
    ]


def _tags_that_name(
    index: Index, txn: Transaction, repository: str, digest: Digest
) -> Iterator[str]:
    start = f"{digest.algorithm}-{digest.hex[:_HEX_OF_TAG]}"
    for key, record in index.tags.scan(txn, scoped(repository, start)):
        name = unscoped(key)[1]
        match = _TAG.match(name)
        tag = Tagged(repository, name, Digest.parse(record.digest), record.moved)
        if match and digest.hex.startswith(match["hex"]) and is_attachment_name(tag):
            yield name
