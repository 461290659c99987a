"""The agent's connection to its registry: it says who it is, takes orders, and reports."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from contextlib import suppress

from docket.agent.deploy_task import DeployTask
from docket.errors import DocketError, RegistryError, RegistryRefused
from docket.remote.fleet import FleetClient
from docket.wire import AgentReport, HostInfo, HostReport, Order

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
_MAX_TASKS = 16
_NOT_FOUND = 404

log = logging.getLogger("docket.agent")


class Orders:
    """One thread that keeps a stream of orders open, and one that reports what they came to."""

    def __init__(
        self,
        fleet: FleetClient,
        describe: Callable[[], HostInfo],
        start: Callable[[Order], DeployTask],
    ) -> None:
        """*describe* gives the host as it is now; *start* begins to obey a fetch order."""
        self._fleet = fleet
        self._describe = describe
        self._start = start
        self._tasks: dict[str, DeployTask] = {}
        self._ended: dict[str, HostReport] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._news = threading.Event()
        self._host_id = describe().id
        self._host_changed = False
        self.is_connected = False
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._listen, "orders"), (self._report, "reports"))
        ]

    def begin(self) -> None:
        """Connect, and stay connected."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Take no more orders; what goes on is stopped."""
        self._stop.set()
        self._news.set()
        with self._lock:
            tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()

    def host_changed(self) -> None:
        """The host holds other images than it said: say so with the next report."""
        self._host_changed = True
        self._news.set()

    # -- orders

    def _listen(self) -> None:
        wait = FIRST_WAIT_SECONDS
        while not self._stop.is_set():
            try:
                for order in self._fleet.orders(self._describe()):
                    self.is_connected, wait = True, FIRST_WAIT_SECONDS
                    self._obey(order)
                    if self._stop.is_set():
                        return
                log.info("the registry ended the stream of orders; connecting again")
            except DocketError as error:
                if self.is_connected or wait == FIRST_WAIT_SECONDS:
                    log.warning("no connection to the registry: %s", error)
            except Exception:  # the outermost edge of a thread that must not end
                log.exception("orders failed; connecting again")
            self.is_connected = False
            # ten thousand agents lose a registry at the same moment: they come back apart
            self._stop.wait(random.uniform(wait / 2, wait))  # noqa: S311
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    def _obey(self, order: Order) -> None:
        if order.action == "fetch":
            self._fetch(order)
        elif order.action == "cancel":
            with self._lock:
                task = self._tasks.pop(order.deploy, None)
            if task:
                task.cancel()

    def _fetch(self, order: Order) -> None:
        with self._lock:
            if order.deploy in self._tasks or len(self._tasks) >= _MAX_TASKS:
                return
            if order.deploy in self._ended:
                self._news.set()  # it was done before the connection broke: say so again
                return
            self._tasks[order.deploy] = self._start(order)
        self._news.set()

    # -- reports

    def _report(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                tasks = dict(self._tasks)
            pause = min((task.order.report_seconds for task in tasks.values()), default=None)
            self._news.wait(pause)
            self._news.clear()
            if self._stop.is_set():
                return
            try:
                self._report_once(tasks)
            except Exception:  # the outermost edge of a thread that must not end
                log.exception("a report failed; trying again")

    def _report_once(self, tasks: dict[str, DeployTask]) -> None:
        # whether a task is over is asked first: what it reports then is its last word
        over = {deploy for deploy, task in tasks.items() if task.is_over}
        reports = {deploy: task.report() for deploy, task in tasks.items()}
        with self._lock:
            for deploy in over:
                self._tasks.pop(deploy, None)
                self._ended[deploy] = reports[deploy]
            reports |= self._ended
        body = AgentReport(
            reports=list(reports.values()), host=self._describe() if self._host_changed else None
        )
        if not (body.reports or body.host) or not self._send(body):
            return
        with self._lock:
            for deploy in over:
                self._ended.pop(deploy, None)
        self._host_changed = False

    def _send(self, body: AgentReport) -> bool:
        """Whether the registry has it; what it doesn't have is sent when it is back."""
        try:
            self._fleet.report(self._host_id, body)
        except RegistryRefused as error:
            return error.status != _NOT_FOUND
        except RegistryError:
            with suppress(DocketError):
                self._stop.wait(FIRST_WAIT_SECONDS)
            self._news.set()
            return False
        return True
