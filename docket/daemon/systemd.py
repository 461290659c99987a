"""What a service says to systemd, and the sockets that systemd holds for it."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator

_FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)


def notify(*lines: str) -> None:
    """Send *lines* such as ``READY=1`` to the manager; a no-op without one (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    # a manager that is gone is no reason to fail
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending,
    ):
        sending.sendto("\n".join(lines).encode(), address)


@contextlib.contextmanager
def reloading() -> Iterator[None]:
    """Report to the manager that the configuration is read again, and when that is done."""
    # systemd takes it for stale without the time
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
    try:
        yield
    finally:
        notify("READY=1")


def watchdog_seconds() -> float | None:
    """How often the manager expects ``WATCHDOG=1``; None for never (sd_watchdog_enabled(3))."""
    period = os.environ.get("WATCHDOG_USEC", "")
    is_ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(period) / 1e6 if period.isdigit() and int(period) and is_ours else None


def inherited_sockets() -> list[socket.socket]:
    """The listening sockets that the manager has opened for this process; none without a manager.

    Their descriptors are closed when programs are run; a second call gives none.
    """
    count = os.environ.pop("LISTEN_FDS", "")
    is_ours = os.environ.pop("LISTEN_PID", "") == str(os.getpid())
    os.environ.pop("LISTEN_FDNAMES", None)
    if not (is_ours and count.isdigit()):
        return []
    descriptors = range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count))
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return [socket.socket(fileno=descriptor) for descriptor in descriptors]
