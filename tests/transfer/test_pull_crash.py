"""A pull that is stopped before each change to the host's store, and then done again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from docket.oci.manifest import Platform
from docket.oci.reference import Reference
from docket.progress import Silent
from docket.remote.client import Client
from docket.store import Store
from docket.transfer.options import TransferOptions
from docket.transfer.pull import PullRequest, Target, pull
from tests.store.samples import assert_readable, assert_sound, open_store
from tests.store.test_crash import MOST_STEPS, Crash, Steps
from tests.support.commands import Commands, registry
from tests.support.images import TinyImage, release

OLD = release("app:1.0", [("base", 30_000), ("app-1", 20_000)])
NEW = release("app:1.1", [("base", 30_000), ("app-2", 20_000)])


def pulled(client: Client, open_it: Callable[[], Store], image: TinyImage) -> None:
    """Bring the image into the store, over HTTP: libtorrent's own writes can't be stopped."""
    reference = Reference.parse(image.name)
    options = TransferOptions(use_swarm=False)
    request = PullRequest(reference, Platform.of_host(), Target.STORE, options=options)
    pull(client, open_it, request, progress=Silent())


def test_pull_stopped_at_every_step(tmp_path: Path) -> None:
    """Invariant 1: no dangling record, what was held stays, the next pull goes through."""
    with registry(tmp_path / "registry") as url, Client(url) as client:
        for image in (OLD, NEW):
            archive = image.archive(tmp_path / f"{image.name}.tar")
            Commands(url, tmp_path / "build")("push", image.name, "--archive", archive)
        prepared = tmp_path / "prepared"
        pulled(client, partial(open_store, prepared), OLD)
        for count in range(MOST_STEPS):
            location = tmp_path / f"crash-{count}"
            shutil.copytree(prepared, location)
            steps = Steps(count)
            with suppress(Crash):
                pulled(client, partial(open_store, location, step=steps), NEW)
            assert_sound(location)
            with open_store(location) as store:
                assert_readable(store, "app", "1.0")
            pulled(client, partial(open_store, location), NEW)
            with open_store(location) as store:
                assert_readable(store, "app", "1.1")
                assert store.maintenance.fsck().findings == []
            shutil.rmtree(location)
            if not steps.crashed:
                assert count > 20, "a pull has steps"
                return
    pytest.fail(f"more than {MOST_STEPS} steps")
