"""One order to fetch an image: what this host does about it, and how far it is."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from docket.agent.image_job import ImageJob, JobProgress
from docket.errors import DocketError, summary
from docket.wire import HostReport, Order

_LOOK_SECONDS = 0.2

log = logging.getLogger("docket.agent")


class DeployTask:
    """Obeys one order on a thread of its own: fetch all layers, then load them if that is asked."""

    def __init__(
        self,
        order: Order,
        begin: Callable[[Order], ImageJob],
        load: Callable[[Order, ImageJob], None],
        on_end: Callable[[], None],
    ) -> None:
        self.order = order
        self._begin = begin
        self._load = load
        self._on_end = on_end
        self._stop = threading.Event()
        self._job: ImageJob | None = None
        self._state = "fetching"
        self._reason = ""
        self._thread = threading.Thread(
            target=self._run, name=f"deploy-{order.deploy}", daemon=True
        )
        self._thread.start()

    def cancel(self) -> None:
        """Stop; layers that are here stay."""
        self._stop.set()

    @property
    def is_over(self) -> bool:
        """Whether the last report is final."""
        return self._state in ("done", "failed")

    def report(self) -> HostReport:
        """How far it is now."""
        state, reason = self._state, self._reason
        progress = self._job.progress() if self._job else JobProgress()
        return HostReport(
            deploy=self.order.deploy,
            state=state,
            total=progress.total,
            done=progress.done,
            rate=progress.rate,
            from_registry=progress.from_registry,
            from_hosts=progress.from_hosts,
            held=progress.held,
            reason=reason[:500],
        )

    def _run(self) -> None:
        try:
            self._obey()
        except DocketError as error:
            self._end("failed", summary(error))
        except OSError as error:
            self._end("failed", str(error))
        except Exception as error:  # the outermost edge of a thread
            log.exception("deploy %s failed", self.order.deploy)
            self._end("failed", f"unexpected: {type(error).__name__}")

    def _obey(self) -> None:
        # a fleet that starts within a second makes the registry's link the narrow place for all
        if self._stop.wait(random.uniform(0, self.order.jitter)):  # noqa: S311
            return self._end("failed", "cancelled")
        job = self._job = self._begin(self.order)
        order = self.order
        job.want_all(with_others=order.hosts > 1, max_download=order.max_download)
        while not job.wait(_LOOK_SECONDS):
            if self._stop.is_set():
                job.close()
                return self._end("failed", "cancelled")
        if self.order.load:
            self._state = "loading"
            self._load(self.order, job)
        return self._end("done", "")

    def _end(self, state: str, reason: str) -> None:
        self._state, self._reason = state, reason
        self._on_end()
