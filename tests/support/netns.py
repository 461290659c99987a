"""Hosts that are network namespaces on one bridge, apart from the machine's own network."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.support.parts import need, need_root


@dataclass(frozen=True, slots=True)
class Host:
    """A network namespace with loopback and one link, eth0, to the others."""

    name: str
    address: str  # IPv4, on eth0
    _programs: list[subprocess.Popen[Any]] = field(default_factory=list, repr=False, compare=False)

    @property
    def enter(self) -> tuple[str, ...]:
        """What goes before a command to run it on this host (files stay the machine's)."""
        # ip netns exec would mount another /sys, which dockerd doesn't bear.
        return ("nsenter", f"--net=/run/netns/{self.name}", "--")

    def run(self, argv: Sequence[str | os.PathLike[str]], **options: Any) -> Any:
        """subprocess.run on this host."""
        return subprocess.run([*self.enter, *argv], **options)

    def popen(self, argv: Sequence[str | os.PathLike[str]], **options: Any) -> Any:
        """subprocess.Popen on this host; its pid is the program's.

        It is killed when the host goes, but the caller is to wait for it.
        """
        program = subprocess.Popen([*self.enter, *argv], **options)
        self._programs.append(program)
        return program

    def kill_all(self) -> None:
        """Kill every program that runs on this host."""
        # One that was started just now may not have entered the namespace yet.
        for program in self._programs:
            program.kill()
        for pid in _ip("netns", "pids", self.name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def rx_bytes(self) -> int:
        """Bytes that came in by eth0 so far, with Ethernet's headers."""
        return self._counters()["rx"]

    def tx_bytes(self) -> int:
        """Bytes that went out by eth0 so far, with Ethernet's headers."""
        return self._counters()["tx"]

    def _counters(self) -> dict[str, int]:
        (link,) = json.loads(_ip("-n", self.name, "-s", "-j", "link", "show", "dev", "eth0"))
        return {way: int(link["stats64"][way]["bytes"]) for way in ("rx", "tx")}


@contextmanager
def namespaces(n: int, *, mbit: float | None = None) -> Iterator[list[Host]]:
    """*n* hosts that reach each other and nothing else, at *mbit* Mb/s each way if given.

    Leaving kills what still runs on them and removes them.
    """
    need("ip", "nsenter", *(["tc"] if mbit else []))
    need_root()
    if not 0 < n < 250:
        raise ValueError(f"from 1 to 249 hosts, not {n}")
    family = f"dk{secrets.token_hex(3)}"
    bridge = f"{family}-br"
    hosts = [Host(f"{family}-{i}", f"10.77.0.{i + 1}") for i in range(n)]
    made: list[str] = []
    try:
        _add(bridge, made)
        _ip("-n", bridge, "link", "add", "br0", "type", "bridge")
        _ip("-n", bridge, "link", "set", "br0", "up")
        for i, host in enumerate(hosts):
            _add(host.name, made)
            _connect(host, bridge, f"port{i}")
            if mbit:
                _shape(host.name, "eth0", mbit)
                _shape(bridge, f"port{i}", mbit)
        yield hosts
    finally:
        for host in hosts:
            if host.name in made:
                host.kill_all()
        for name in reversed(made):
            _ip("netns", "delete", name)


def _add(name: str, made: list[str]) -> None:
    _ip("netns", "add", name)
    made.append(name)
    _ip("-n", name, "link", "set", "lo", "up")


def _connect(host: Host, bridge: str, port: str) -> None:
    # Made inside the bridge's namespace: the machine's own never sees either end.
    peer = ("peer", "name", "eth0", "netns", host.name)
    _ip("-n", bridge, "link", "add", port, "type", "veth", *peer)
    _ip("-n", bridge, "link", "set", port, "master", "br0", "up")
    _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
    _ip("-n", host.name, "link", "set", "eth0", "up")


def _shape(namespace: str, link: str, mbit: float) -> None:
    burst = max(32_000, int(mbit * 1e6 / 8 / 250))
    rate = ("rate", f"{int(mbit * 1e6)}bit", "burst", f"{burst}b", "latency", "50ms")
    _checked("tc", "-n", namespace, "qdisc", "add", "dev", link, "root", "tbf", *rate)


def _ip(*words: str) -> str:
    return _checked("ip", *words)


def _checked(*argv: str) -> str:
    try:
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise
