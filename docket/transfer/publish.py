"""Pushing as the command does it: out of an archive, or out of the engine."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from docket import archive
from docket.oci.digest import Digest
from docket.oci.reference import Reference
from docket.progress import Progress
from docket.remote.client import Client
from docket.transfer.push import Compression, Push, PushReport, push_known


def push_archive(
    client: Client, reference: Reference, source: str, how: Compression, *, progress: Progress
) -> PushReport:
    """Push the image of an archive: a file, a folder (OCI layout), or ``-`` for stdin."""
    if source == "-":
        return _push_stream(client, reference, sys.stdin.buffer, how, progress=progress)
    return _push_stream(client, reference, Path(source), how, progress=progress)


def push_from_engine(
    client: Client, reference: Reference, how: Compression, *, progress: Progress
) -> PushReport:
    """Push an image that the container engine has.

    When the registry has all its layers, the engine isn't asked for their bytes.
    """
    # docker's package is a third of what loading this takes, and archives have no use for it
    from docket.engine import Engine

    with closing(Engine.connect()) as engine:
        image = engine.image(str(reference))
        if image.config:
            known = push_known(
                client,
                reference,
                config=image.config,
                diff_ids=image.diff_ids,
                progress=progress,
            )
            if known:
                return known
        with engine.save(str(reference)) as stream:
            return _push_stream(
                client, reference, stream, how, progress=progress, expected=image.diff_ids
            )


def _push_stream(
    client: Client,
    reference: Reference,
    source: Path | BinaryIO,
    how: Compression,
    *,
    progress: Progress,
    expected: Sequence[Digest] = (),
) -> PushReport:
    """Push the image in *source*; layers that are *expected* there go up while it is read."""
    with (
        tempfile.TemporaryDirectory(prefix="docket-push-") as spool,
        Push(client, reference, how, progress) as push,
    ):
        push.expect(expected)
        image = archive.read(source, spool=Path(spool), name=str(reference), on_layer=push.offer)
        return push.finish(config=image.config, layers=image.layers)
