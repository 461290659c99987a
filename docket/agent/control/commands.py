"""What docket's commands do on a host whose store an agent owns: the agent does it for them."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from docket.agent.control.server import Caller, Command
from docket.agent.image_job import ImageJob, Tools
from docket.agent.pull_through import PullThrough
from docket.config import PIN_SECONDS
from docket.errors import SizeMismatch, Stopped
from docket.oci.manifest import Descriptor, Platform
from docket.oci.reference import Reference
from docket.progress import CHECKING, MISSING, LayerProgress
from docket.remote.address import RegistryAddress
from docket.remote.client import Client
from docket.store import Retention, Sample, Store
from docket.transfer.fetch import Fetched
from docket.transfer.listing import image_rows
from docket.transfer.load import copy_archive, load_into_engine, measure_layers
from docket.transfer.options import TransferOptions
from docket.transfer.plan import (
    LayerPlan,
    connect_engine,
    fetch_request,
    plan_image,
    plan_layers,
    plan_report,
)
from docket.transfer.pull import (
    PullReport,
    pulled_layer,
    report_held,
    store_small_blobs,
    tag_locally,
)
from docket.transfer.resolve import ResolvedImage, resolve

if TYPE_CHECKING:
    from docket.engine import Engine

_LOOK_SECONDS = 0.2
_OTHER_REGISTRIES = 8

Arguments = Mapping[str, Any]


class HostCommands:
    """Pulls, plans, lists, collects and checks, for commands of this host."""

    def __init__(self, tools: Tools, source: PullThrough, *, on_swept: Callable[[], None]) -> None:
        """*on_swept* is called when images may have gone from the store."""
        self._tools = tools
        self._source = source
        self._on_swept = on_swept
        self._others: dict[RegistryAddress, tuple[PullThrough, Client]] = {}
        self._lock = threading.Lock()

    def table(self) -> dict[str, Command]:
        """The commands by name."""
        return {
            "pull": self.pull,
            "plan": self.plan,
            "images": self.images,
            "gc": self.gc,
            "fsck": self.fsck,
        }

    def close(self) -> None:
        """Stop fetches from other registries than the agent's."""
        with self._lock:
            others = list(self._others.values())
        for source, client in others:
            client.abort()
            source.close()
            client.close()

    # -- commands

    def images(self, arguments: Arguments, _caller: Caller) -> dict[str, Any]:
        """``docket images --local``."""
        rows = image_rows(self._tools.store, arguments["name"])
        return {"images": [msgspec.to_builtins(row) for row in rows]}

    def gc(self, arguments: Arguments, _caller: Caller) -> dict[str, Any]:
        """``docket gc --local``: what is being served to engines is pinned, and stays."""
        grace = arguments["grace"]
        report = self._tools.store.maintenance.gc(
            grace=PIN_SECONDS if grace is None else grace,
            retention=Retention(
                arguments["keep"],
                tuple(arguments["protect"]),
                arguments["age"],
                arguments["unused"],
            ),
            dry_run=arguments["dry_run"],
        )
        if not report.dry_run:
            self._on_swept()
        return dataclasses.asdict(report)

    def fsck(self, arguments: Arguments, caller: Caller) -> dict[str, Any]:
        """``docket fsck --local``."""

        def on_blob(done: int, total: int) -> None:
            caller.layer(LayerProgress("store", CHECKING, done, total, unit="blobs"))

        text = arguments["read_data"]
        report = self._tools.store.maintenance.fsck(
            sample=Sample.parse(text) if text else None,
            on_blob=on_blob,
            is_stopped=lambda: caller.is_gone,
        )
        if report.quarantined:
            self._on_swept()
        return report.to_json()

    def plan(self, arguments: Arguments, _caller: Caller) -> dict[str, Any]:
        """``docket plan``."""
        _, client = self._source_of(arguments["registry"])
        planned = plan_image(
            client,
            self._tools.store,
            Reference.parse(arguments["image"]),
            Platform.parse(arguments["platform"]),
            ask_engine=not arguments["layers_only"],
            variables=arguments["variables"],
        )
        return plan_report(*planned)

    def pull(self, arguments: Arguments, caller: Caller) -> dict[str, Any]:
        """``docket pull``: as `docket.transfer.pull.pull`, by the job that engines share."""
        source, client = self._source_of(arguments["registry"])
        store = self._tools.store
        with _engine(arguments) as engine:
            reference = Reference.parse(arguments["image"])
            image = resolve(client, reference, Platform.parse(arguments["platform"]))
            began = time.monotonic()
            plans = plan_layers(image, store, engine=engine)
            report_held(caller, plans)
            wanted = fetch_request(client, image, store, plans).wanted
            fetched = Fetched()
            if wanted:
                job = source.job_of(image, self._transfer(arguments["options"]))
                fetched = _await(job, plans, wanted, caller)
            store_small_blobs(store, image)
            tag_locally(store, image)
            self._tools.on_held()
            fetch_seconds = time.monotonic() - began
            loaded = load_into_engine(image, store, engine) if engine else 0
            if caller.descriptor is not None:
                _write(image, store, caller.descriptor, may_rewind=arguments["may_rewind"])
        load_seconds = time.monotonic() - began - fetch_seconds
        return PullReport(
            reference=reference,
            digest=image.digest,
            config=image.config_descriptor.digest,
            layers=tuple(pulled_layer(plan, fetched) for plan in plans),
            swarm_bytes=fetched.swarm_bytes,
            http_bytes=fetched.http_bytes,
            loaded_layers=loaded,
            seconds={"fetch": fetch_seconds, "verify": fetched.verifying, "load": load_seconds},
        ).to_json()

    # -- inside

    def _transfer(self, wishes: Arguments) -> TransferOptions:
        """The agent's own options, with what a command may choose: limits are the agent's."""
        own = self._source.options
        return dataclasses.replace(
            own,
            zone=wishes["zone"] or own.zone,
            use_swarm=wishes["use_swarm"],
            peer_timeout=wishes["peer_timeout"],
        )

    def _source_of(self, registry: Mapping[str, Any] | None) -> tuple[PullThrough, Client]:
        """The images of the registry that a command names: the agent's own, or another."""
        if registry is None:
            return self._source, self._tools.client
        address = RegistryAddress.parse(registry["host"], registry["port"])
        if address == self._tools.client.address:
            return self._source, self._tools.client
        with self._lock:
            if address not in self._others:
                while len(self._others) >= _OTHER_REGISTRIES:
                    gone, client = self._others.pop(next(iter(self._others)))
                    gone.close()
                    client.close()
                client = Client(address)
                tools = dataclasses.replace(self._tools, client=client)
                self._others[address] = (PullThrough(tools, client), client)
            return self._others[address]


@contextmanager
def _engine(arguments: Arguments) -> Iterator[Engine | None]:
    """The command's own container engine, if the image is to be loaded into it."""
    with ExitStack() as stack:
        if arguments["target"] == "engine":
            yield stack.enter_context(closing(connect_engine(arguments["variables"])))
        else:
            yield None


def _await(
    job: ImageJob, plans: Sequence[LayerPlan], wanted: Sequence[Descriptor], caller: Caller
) -> Fetched:
    """Fetch *wanted*, and show how far it is; where the layers came from.

    What other pulls of the image that run at the same time fetch counts too.
    """
    before = job.fetched()
    missing = {plan.descriptor.digest for plan in plans if plan.source == MISSING}
    job.want(wanted)
    shown: dict[str, LayerProgress] = {}
    noted = 0
    is_over = False
    while not is_over:
        is_over = job.wait(_LOOK_SECONDS)
        for row in job.layer_rows():
            if shown.get(row.name) != row:
                shown[row.name] = row
                caller.layer(row)
        notes = job.notes()
        for text in notes[noted:]:
            caller.note(text)
        noted = len(notes)
        if not caller.look():
            raise Stopped("the pull")
    if not job.has(wanted):
        raise Stopped("the pull")
    after = job.fetched()
    return dataclasses.replace(
        after,
        sources={digest: how for digest, how in after.sources.items() if digest in missing},
        swarm_bytes=after.swarm_bytes - before.swarm_bytes,
        http_bytes=after.http_bytes - before.http_bytes,
        verifying=after.verifying - before.verifying,
    )


def _write(image: ResolvedImage, store: Store, descriptor: int, *, may_rewind: bool) -> None:
    """Write the image's archive into the command's file."""
    with os.fdopen(os.dup(descriptor), "wb") as file:
        try:
            copy_archive(image, store, file)
        except SizeMismatch:
            measure_layers(image, store)
            if not may_rewind:
                raise  # half of the archive is out; the next command has the right sizes
            file.seek(0)
            file.truncate()
            copy_archive(image, store, file)
