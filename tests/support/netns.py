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


@dataclass(frozen=True, slots=True)
class Shape:
    """How each link is slowed down, both ways.

    *mbit* is Mb/s with all headers, *buffer_ms* how long a packet may wait at a link before it is
    dropped, *delay_ms* and *loss* (per cent) what netem adds on the way to a host, where the kernel
    has it.
    """

    mbit: float
    buffer_ms: float = 50.0
    delay_ms: float = 0.0
    loss: float = 0.0


@dataclass(frozen=True, slots=True)
class Host:
    """A network namespace with loopback and one link, eth0, to the others."""

    name: str
    address: str  # IPv4, on eth0
    _programs: list[subprocess.Popen[Any]] = field(default_factory=list, repr=False, compare=False)

    @property
    def mac(self) -> str:
        """The address of eth0's Ethernet."""
        return ":".join(("02:00", *(f"{int(byte):02x}" for byte in self.address.split("."))))

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

    def shaped_bytes(self) -> int:
        """Bytes that the shaper of eth0 let out so far, with the headers of every packet."""
        (shaper,) = json.loads(_checked("tc", "-n", self.name, "-s", "-j", "qdisc", "show"))[-1:]
        return int(shaper["bytes"])

    def _counters(self) -> dict[str, int]:
        (link,) = json.loads(_ip("-n", self.name, "-s", "-j", "link", "show", "dev", "eth0"))
        return {way: int(link["stats64"][way]["bytes"]) for way in ("rx", "tx")}


@dataclass(frozen=True, slots=True)
class Network:
    """Hosts on a bridge."""

    hosts: tuple[Host, ...]
    bridge: str  # the bridge's own namespace

    def rx_bytes(self) -> list[int]:
        """Bytes that came in at each host so far, all read at once."""
        rows = json.loads(_ip("-n", self.bridge, "-s", "-j", "link", "show", "type", "veth"))
        sent = {row["ifname"]: int(row["stats64"]["tx"]["bytes"]) for row in rows}
        return [sent[f"port{i}"] for i in range(len(self.hosts))]


@contextmanager
def network(n: int, *, shape: Shape | None = None) -> Iterator[Network]:
    """*n* hosts that reach each other and nothing else.

    Leaving kills what still runs on them and removes them; a SIGINT meanwhile doesn't stop that.
    """
    if not 0 < n < 250:
        raise ValueError(f"from 1 to 249 hosts, not {n}")
    family = f"dk{secrets.token_hex(3)}"
    bridge = f"{family}-br"
    hosts = tuple(Host(f"{family}-{i}", f"10.77.0.{i + 1}") for i in range(n))
    try:
        _add(bridge)
        _ip("-n", bridge, "link", "add", "br0", "type", "bridge")
        _ip("-n", bridge, "link", "set", "br0", "up")
        for i, host in enumerate(hosts):
            _add(host.name)
            _connect(host, bridge, f"port{i}")
            if shape:
                _shape(host.name, "eth0", shape)
                _shape(bridge, f"port{i}", shape)
                _spoil(bridge, f"port{i}", shape)
        for host in hosts:
            _introduce(host, hosts)
        yield Network(hosts, bridge)
    finally:
        with _uninterrupted():
            _remove(family, hosts)


def _remove(family: str, hosts: Sequence[Host]) -> None:
    # asked of the machine, for a Ctrl-C may have come between making and noting
    listed = {line.split()[0] for line in _ip("netns", "list").splitlines() if line.strip()}
    for host in hosts:
        if host.name in listed:
            host.kill_all()
    for name in listed:
        if name.startswith(f"{family}-"):
            _ip("netns", "delete", name)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """No SIGINT for this process and the programs it starts; only its main thread can do so."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _add(name: str) -> None:
    _ip("netns", "add", name)
    _ip("-n", name, "link", "set", "lo", "up")


def _connect(host: Host, bridge: str, port: str) -> None:
    # Made inside the bridge's namespace: the machine's own never sees either end.
    peer = ("peer", "name", "eth0", "address", host.mac, "netns", host.name)
    _ip("-n", bridge, "link", "add", port, "type", "veth", *peer)
    _ip("-n", bridge, "link", "set", port, "master", "br0", "up")
    _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
    _ip("-n", host.name, "link", "set", "eth0", "up")
    # what Linux comes with, whatever this machine was set to
    route = ("10.77.0.0/24", "dev", "eth0", "src", host.address, "scope", "link")
    _ip("-n", host.name, "route", "change", *route, "proto", "kernel", "congctl", "cubic")


def _introduce(host: Host, hosts: Sequence[Host]) -> None:
    """Give *host* the addresses of the others: all namespaces share one table of neighbours.

    It takes 1,024 neighbours (gc_thresh3), and forty hosts have more; permanent ones don't count.
    """
    neighbours = (
        f"neigh replace {neighbour.address} lladdr {neighbour.mac} dev eth0 nud permanent\n"
        for neighbour in hosts
        if neighbour != host
    )
    _checked("ip", "-n", host.name, "-batch", "-", text="".join(neighbours))


def _shape(namespace: str, link: str, shape: Shape) -> None:
    burst = max(32_000, int(shape.mbit * 1e6 / 8 / 250))
    rate = ("rate", f"{int(shape.mbit * 1e6)}bit", "burst", f"{burst}b")
    latency = ("latency", f"{shape.buffer_ms:g}ms")
    _qdisc(namespace, link, "root", "handle", "1:", "tbf", *rate, *latency)


def _spoil(namespace: str, link: str, shape: Shape) -> None:
    if shape.delay_ms or shape.loss:
        netem = ("delay", f"{shape.delay_ms:g}ms", "loss", f"{shape.loss:g}%")
        _qdisc(namespace, link, "parent", "1:", "handle", "2:", "netem", *netem)


def _qdisc(namespace: str, link: str, *words: str) -> None:
    _checked("tc", "-n", namespace, "qdisc", "add", "dev", link, *words)


def _ip(*words: str) -> str:
    return _checked("ip", *words)


def _checked(*argv: str, text: str = "") -> str:
    """What a command prints, that reads *text*."""
    try:
        return subprocess.run(argv, check=True, capture_output=True, text=True, input=text).stdout
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise
