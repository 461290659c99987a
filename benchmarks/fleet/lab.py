"""One run: a source, N hosts that start at once, and what each did until the last was done."""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import resources
from benchmarks.fleet.strategies import STRATEGIES, Image, Source
from tests.support.commands import environment
from tests.support.netns import Host, Network, Shape, network

SAMPLE_SECONDS = 0.5
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run is made of: so many *hosts*, links of one *shape*, and a *limit* in seconds.

    *engine* is a DOCKER_HOST into which docket's first host loads the image; the others, and all
    without it, only bring it into their stores.
    """

    hosts: int
    shape: Shape
    limit: float = 3600.0
    engine: str = ""


@dataclass(slots=True)
class Pull:
    """A host's pull. *seconds* from the command's start until the image was there, or None.

    *report* is what the command said of itself; *cpu* in seconds, *rss* in bytes at its peak.
    """

    began: float
    seconds: float | None = None
    report: dict[str, Any] = field(default_factory=dict)
    cpu: float = 0.0
    rss: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """What one strategy did with an *image*, named as its archive; bytes and seconds.

    *elapsed* is the time until the last host was done, or the limit came; *egress* what left the
    source by its link; *busy* the share of the machine's processor time that was used. *curves* has
    what had come in at each host, with all headers, at each second of *clock*.
    """

    strategy: str
    setting: Setting
    image: str
    payload: int
    pieces: int
    pulls: tuple[Pull, ...]
    elapsed: float
    egress: int
    source_cpu: float
    source_rss: int
    busy: float
    clock: tuple[float, ...]
    curves: tuple[tuple[int, ...], ...]

    @property
    def bound(self) -> float:
        """T*: seconds in which all hosts could have all, if every link were always full."""
        alone = self.payload * 8 / (self.setting.shape.mbit * 1e6)
        return alone * (1 + math.floor(math.log2(self.setting.hosts)) / self.pieces)

    @property
    def seconds(self) -> list[float]:
        """What each host took that was done, ascending."""
        return sorted(pull.seconds for pull in self.pulls if pull.seconds is not None)

    @property
    def finished(self) -> bool:
        """Whether all hosts were done within the limit."""
        return len(self.seconds) == self.setting.hosts


class PullFailed(RuntimeError):
    """A host's command ended without the image."""


def run(
    strategy: str, image: Image, setting: Setting, folder: Path, *, on_made: Callable[[str], None]
) -> Run:
    """Bring *image* to all hosts by *strategy*; what they get lies below *folder*.

    *on_made* is told the name of the source's namespace; the hosts' have higher numbers. Raises
    `PullFailed`. Leaving, however, removes the network with all that runs on it.
    """
    with network(setting.hosts + 1, shape=setting.shape) as made:
        on_made(made.hosts[0].name)
        with (
            STRATEGIES[strategy](image, made) as source,
            _Race(made, source, folder, setting) as race,
        ):
            race.watch()
            return race.told(strategy, image)


class _Race:
    """The hosts' commands, while they run."""

    def __init__(self, made: Network, source: Source, folder: Path, setting: Setting) -> None:
        self._network = made
        self._source = source
        self._setting = setting
        self._folder = folder
        self._running: dict[subprocess.Popen[bytes], Pull] = {}
        self._selector = selectors.DefaultSelector()
        self._clock: list[float] = []
        self._samples: list[list[int]] = []
        self._before = self._counters()
        self._began = self._ended = time.monotonic()

    def __enter__(self) -> _Race:
        self._before = self._counters()
        self._began = time.monotonic()
        for number, host in enumerate(self._network.hosts[1:]):
            self._start(host, self._folder / f"host-{number}", load=not number)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._selector.close()
        for program in self._running:
            _end(program)

    def _start(self, host: Host, place: Path, *, load: bool) -> None:
        place.mkdir(parents=True)
        engine = self._setting.engine if load else ""
        argv = self._source.argv(host, place, bool(engine))
        variables = environment(engine)
        pull = Pull(time.monotonic())
        with (place / "errors").open("wb") as errors:
            program = host.popen(argv, stdout=subprocess.PIPE, stderr=errors, env=variables)
        self._running[program] = pull
        self._selector.register(program.stdout, selectors.EVENT_READ, (program, place))

    def watch(self) -> None:
        """Until all hosts are done, or the limit is reached."""
        deadline = self._began + self._setting.limit
        tick = self._began
        while self._selector.get_map() and (now := time.monotonic()) < deadline:
            if now >= tick:
                self._sample()
                tick += SAMPLE_SECONDS
            for key, _ in self._selector.select(max(min(tick, deadline) - time.monotonic(), 0)):
                self._selector.unregister(key.fileobj)
                self._note(*key.data)
        self._ended = time.monotonic()
        self._sample()

    def told(self, strategy: str, image: Image) -> Run:
        """What happened; ends all commands."""
        egress, source_cpu, used, idle = (
            after - before for after, before in zip(self._counters(), self._before, strict=True)
        )
        source_rss = resources.peak_rss(self._source.pid)
        for program, pull in self._running.items():
            pull.cpu, pull.rss = _end(program)
        return Run(
            strategy=strategy,
            setting=self._setting,
            image=image.archive.name,
            payload=self._source.payload,
            pieces=image.pieces,
            pulls=tuple(self._running.values()),
            elapsed=self._ended - self._began,
            egress=int(egress),
            source_cpu=source_cpu,
            source_rss=source_rss,
            busy=used / (used + idle),
            clock=tuple(self._clock),
            curves=tuple(zip(*self._samples, strict=True)),
        )

    def _note(self, program: subprocess.Popen[bytes], place: Path) -> None:
        """A host's command said that it is done, or is ending."""
        assert program.stdout
        pull = self._running[program]
        line = program.stdout.readline()
        if not line and _code(program):
            said = (place / "errors").read_text(errors="replace")[-2000:]
            raise PullFailed(f"{program.args!r} ended with {program.returncode}: {said}")
        pull.seconds = time.monotonic() - pull.began
        pull.report = json.loads(line or "{}")

    def _sample(self) -> None:
        self._clock.append(time.monotonic() - self._began)
        self._samples.append(self._network.rx_bytes()[1:])

    def _counters(self) -> tuple[float, float, float, float]:
        """What left the source, its processor seconds, and those of the machine: used and idle."""
        # proc(5): user nice system idle iowait irq softirq steal …
        line = Path("/proc/stat").read_text().split("\n", 1)[0]
        times = [int(word) / _TICKS for word in line.split()[1:9]]
        idle = times[3] + times[4]
        egress = self._network.hosts[0].shaped_bytes()
        return egress, resources.cpu_seconds(self._source.pid), sum(times) - idle, idle


def _code(program: subprocess.Popen[bytes]) -> int:
    """The exit code of a program that is about to end, which is still to be collected."""
    found = os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    assert found
    return found.si_status


def _end(program: subprocess.Popen[bytes]) -> tuple[float, int]:
    """Kill it, if it still runs; its processor seconds, and its peak memory in bytes."""
    if program.returncode is not None:
        return 0.0, 0
    peak = 0
    # of one that runs; of one that has ended never less is told than what this process has
    with suppress(StopIteration):
        peak = resources.peak_rss(program.pid)
    # not program.kill(), which would collect one that has ended, and lose what it used
    os.kill(program.pid, signal.SIGKILL)
    _, status, used = os.wait4(program.pid, 0)
    program.returncode = os.waitstatus_to_exitcode(status)
    if program.stdout:
        program.stdout.close()
    return used.ru_utime + used.ru_stime, peak or used.ru_maxrss * 1024
