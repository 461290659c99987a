"""Removing a manifest from a repository, with all that only it gave a reason for."""

from __future__ import annotations

from docket.errors import ManifestUnknown
from docket.oci.digest import Digest
from docket.store.index.environment import Index
from docket.store.index.records import edge, scoped
from docket.store.index.tables import Transaction
from docket.store.manifests.attachments import attached_tags, tags_of
from docket.store.manifests.edges import clear_tag


def drop_manifest(index: Index, txn: Transaction, repository: str, digest: str) -> None:
    """Forget a manifest of *repository*, its tags and edges, and the tags attached to it.

    Raises `ManifestUnknown`.
    """
    key = scoped(repository, digest)
    record = index.manifests.get(txn, key)
    if record is None:
        raise ManifestUnknown(f"{repository}@{digest}")
    for tag in tags_of(index, txn, repository, digest):
        clear_tag(index, txn, repository, tag)
    for tag in attached_tags(index, txn, repository, Digest.parse(digest)):
        clear_tag(index, txn, repository, tag)
    index.manifests.delete(txn, key)
    index.pulls.delete(txn, key)
    for child in list(index.children.values(txn, key)):
        index.parents.remove(txn, child, edge(repository, "m", digest))
        index.children.remove(txn, key, child)
    index.parents.remove(txn, digest.encode(), edge(repository, "h"))
    if record.subject:
        index.referrers.remove(txn, scoped(repository, record.subject), digest.encode())
