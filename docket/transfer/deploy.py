"""Pulling as the commands do it: engine, swarm and store put together."""

from __future__ import annotations

import enum
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, BinaryIO

from docket.config import PEER_TIMEOUT
from docket.oci import manifest
from docket.oci.manifest import Platform
from docket.oci.reference import Reference
from docket.progress import Progress
from docket.rate_limit import RateLimiter
from docket.remote.client import Client
from docket.store import Store
from docket.torrent.metainfo import parse_metainfo
from docket.torrent.peer.session_options import SessionOptions
from docket.torrent.peer.swarm import Swarm
from docket.transfer.pull import (
    LayerPlan,
    PullReport,
    Resolved,
    held_prefix,
    load_stream,
    plan,
    pull,
    resolve,
)

if TYPE_CHECKING:
    from docket.engine import Engine


class Target(enum.Enum):
    """Where a pulled image goes."""

    ENGINE = "engine"
    STORE = "store"
    ARCHIVE = "archive"

    @classmethod
    def of(cls, *, layers_only: bool, output: str | None) -> Target:
        """The target that these options mean."""
        if layers_only:
            return cls.STORE
        return cls.ARCHIVE if output else cls.ENGINE


@dataclass(frozen=True, slots=True)
class PullRequest:
    """What to pull, how and where to; limits in bytes a second, 0 is none."""

    reference: Reference
    platform: Platform
    target: Target
    output: str | None = None
    seed: float = 0.0
    patience: float = PEER_TIMEOUT
    zone: str = ""
    no_swarm: bool = False
    max_upload: int = 0
    max_download: int = 0
    sources: bool = False


def pull_image(
    client: Client,
    open_store: Callable[[], Store],
    request: PullRequest,
    *,
    progress: Progress,
    on_done: Callable[[PullReport], None],
) -> None:
    """Pull, load or write the image, report it to *on_done*, then seed for as long as asked."""
    with ExitStack() as stack:
        engine = None
        if request.target is Target.ENGINE:
            engine = stack.enter_context(closing(_engine()))
        swarms: list[Swarm] = []

        def begin_swarm() -> Swarm:
            swarms.append(
                stack.enter_context(
                    Swarm(
                        SessionOptions(
                            max_upload=request.max_upload,
                            max_download=request.max_download,
                            watch_blocks=request.sources,
                        )
                    )
                )
            )
            return swarms[0]

        image = resolve(client, request.reference, request.platform)
        store = open_store()
        stack.enter_context(store.downloads.open(image.digest))
        with store:
            report = pull(
                client,
                store,
                image,
                engine=engine,
                swarm=None if request.no_swarm else begin_swarm,
                progress=progress,
                patience=request.patience,
                zone=request.zone,
                pace=RateLimiter(request.max_download),
            )
            _deliver(report, image, store, request, engine)
        on_done(report)
        # others may use the store now; the swarm needs only its hard links
        if request.seed and swarms and report.info_hash:
            _seed(request.seed, progress)


def plan_image(
    client: Client, store: Store, reference: Reference, platform: Platform, *, ask_engine: bool
) -> tuple[Resolved, list[LayerPlan]]:
    """Where each layer of an image would come from."""
    image = resolve(client, reference, platform)
    if not ask_engine:
        return image, plan(image, store, engine=None)
    with closing(_engine()) as engine:
        return image, plan(image, store, engine=engine)


def inspect_image(client: Client, reference: Reference, platform: Platform) -> dict[str, Any]:
    """An image's manifest, layers and torrent as plain values; sizes in bytes."""
    image = resolve(client, reference, platform)
    content, _ = client.torrent(Reference(reference.repository, image.digest))
    torrent = parse_metainfo(content)
    config = manifest.parse_config(image.config)
    return {
        "name": str(reference),
        "digest": str(image.digest),
        "media_type": image.media_type,
        "config": str(image.parsed.config.digest),
        "platform": str(config.platform or ""),
        "info_hash": torrent.info_hash.hex(),
        "tracker": torrent.announce,
        "layers": [
            {
                "digest": str(layer.digest),
                "diff_id": str(diff_id),
                "size": layer.size,
                "media_type": layer.media_type,
            }
            for layer, diff_id in zip(image.layers, image.diff_ids, strict=True)
        ],
    }


def _engine() -> Engine:
    # docker's package is a tenth of a pull's start, and --layers-only has no use for it
    from docket.engine import Engine

    return Engine.connect()


def _deliver(
    report: PullReport,
    image: Resolved,
    store: Store,
    request: PullRequest,
    engine: Engine | None,
) -> None:
    """Hand the image to the engine or the archive, and add to *report* what that took."""
    began = time.monotonic()
    names = [name] if (name := request.reference.tagged_name) else []
    if engine:
        leave_out = held_prefix(image, store, engine)
        engine.load(load_stream(image, store, names=names, leave_out=leave_out))
        report.loaded_layers = len(image.layers) - leave_out
    elif request.output:
        with _output(request.output) as stream:
            for block in load_stream(image, store, names=names):
                stream.write(block)
    report.seconds["load"] = time.monotonic() - began


@contextmanager
def _output(target: str) -> Iterator[BinaryIO]:
    """Standard output, or a file that appears under its name only when it is whole."""
    if target == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    final = Path(target)
    partial = final.with_name(f".{final.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.rename(final)
    finally:
        partial.unlink(missing_ok=True)


def _seed(seconds: float, progress: Progress) -> None:
    progress.note(f"seeding for {seconds:g} s; Ctrl-C ends it")
    with suppress(KeyboardInterrupt):
        Event().wait(seconds)
