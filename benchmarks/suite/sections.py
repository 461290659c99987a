"""The parts of the suite: what each measures, and how its results are kept as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from benchmarks.load import throughput
from benchmarks.machine import Machine
from benchmarks.suite import bounds, index, peer_throughput, pull, push, sizes, store
from benchmarks.summary import Summary

T = TypeVar("T")

RUNS = 5
"""Runs of each measurement of time."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    *most* bytes of one deploy to all hosts, counts of *blobs* in an index, *body* bytes of a blob
    that is streamed.
    """

    most: float
    blobs: tuple[int, ...]
    body: int


QUICK = Scale(most=1.5e9, blobs=(10_000, 100_000), body=64 * throughput.MB)
FULL = Scale(most=3e9, blobs=(10_000, 100_000, 1_000_000), body=200 * throughput.MB)


@dataclass(frozen=True, slots=True)
class Store:
    """What `benchmarks.suite.store` measures."""

    ingest: list[store.Ingest]
    family: store.Family


@dataclass(frozen=True, slots=True)
class Throughput:
    """What `load.throughput` measures; *body* and *peak_rss* (by registry, verb) in bytes."""

    body: int
    rows: list[throughput.Row]
    peak_rss: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """What a section measured, and on what machine."""

    machine: Machine
    results: T


@dataclass(frozen=True, slots=True)
class Section(Generic[T]):
    """A part of the suite; *measure* gets the images by name and an empty folder."""

    name: str
    result_type: type[T]
    measure: Callable[[Mapping[str, Path], Path, Scale], T]

    def save(self, folder: Path, machine: Machine, results: T) -> None:
        """Write *results* into *folder*."""
        text = json.dumps(
            {"machine": asdict(machine), "results": msgspec.to_builtins(results)}, indent=1
        )
        (folder / f"{self.name}.json").write_text(text + "\n")

    def load(self, folder: Path) -> Result[T] | None:
        """What *folder* has, or None."""
        path = folder / f"{self.name}.json"
        if not path.exists():
            return None
        plain: Any = json.loads(path.read_bytes())
        machine = msgspec.convert(plain["machine"], Machine)
        return Result(machine, msgspec.convert(plain["results"], self.result_type))


def _sizes(images: Mapping[str, Path], folder: Path, scale: Scale) -> list[sizes.Row]:
    return sizes.measure(images, folder, most=scale.most)


def _levels(images: Mapping[str, Path], folder: Path, _scale: Scale) -> list[sizes.Row]:
    return sizes.measure_levels(images, folder)


def _bounds(images: Mapping[str, Path], folder: Path, _scale: Scale) -> list[bounds.Bound]:
    return bounds.measure(images, folder)


def _push(images: Mapping[str, Path], folder: Path, _scale: Scale) -> list[push.Row]:
    return push.measure(images, folder, runs=RUNS)


def _pull(images: Mapping[str, Path], folder: Path, _scale: Scale) -> list[pull.Row]:
    return pull.measure(images, folder, runs=RUNS)


def _store(images: Mapping[str, Path], folder: Path, _scale: Scale) -> Store:
    return Store(*store.measure(images, folder, runs=RUNS))


def _index(_images: Mapping[str, Path], folder: Path, scale: Scale) -> list[index.Row]:
    rows = []
    for count in scale.blobs:
        # a process of its own: its memory is the index's alone
        argv = [
            sys.executable,
            "-m",
            "benchmarks.suite.index",
            str(count),
            str(folder / str(count)),
        ]
        printed = subprocess.run(argv, capture_output=True, check=True).stdout
        rows.append(msgspec.json.decode(printed, type=index.Row))
    return rows


def _throughput(_images: Mapping[str, Path], folder: Path, scale: Scale) -> Throughput:
    rows = throughput.measure(folder, size=scale.body, runs=RUNS)
    return Throughput(scale.body, rows, throughput.memory_of_many_clients(folder, size=scale.body))


def _peer_throughput(_images: Mapping[str, Path], folder: Path, scale: Scale) -> dict[str, Summary]:
    return peer_throughput.measure(folder, size=scale.body, runs=RUNS)


SIZES = Section("sizes", list[sizes.Row], _sizes)
LEVELS = Section("levels", list[sizes.Row], _levels)
BOUNDS = Section("bounds", list[bounds.Bound], _bounds)
PUSH = Section("push", list[push.Row], _push)
PULL = Section("pull", list[pull.Row], _pull)
STORE = Section("store", Store, _store)
INDEX = Section("index", list[index.Row], _index)
THROUGHPUT = Section("throughput", Throughput, _throughput)
PEER_THROUGHPUT = Section("peer_throughput", dict[str, Summary], _peer_throughput)

SECTIONS: dict[str, Section[Any]] = {
    section.name: section
    for section in (SIZES, LEVELS, BOUNDS, PUSH, PULL, STORE, INDEX, THROUGHPUT, PEER_THROUGHPUT)
}
