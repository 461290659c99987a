"""The suite's report: a Markdown page of tables and plots, out of the results in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import Machine
from benchmarks.resources import ResourceSummary
from benchmarks.suite import bounds, peer_throughput, pull, push
from benchmarks.suite.sections import (
    BOUNDS,
    INDEX,
    LEVELS,
    PEER_THROUGHPUT,
    PULL,
    PUSH,
    SECTIONS,
    SIZES,
    STORE,
    THROUGHPUT,
    Result,
)
from benchmarks.suite.sizes import (
    ALLOWANCE,
    DOCKET_LEVELS,
    GZIP,
    OVERHEAD,
    WHOLE_TAR,
    Row,
    docket_name,
)
from tests.support.image_family.steps import STEPS

MB = 1e6
_STRATEGIES = (
    WHOLE_TAR,
    GZIP,
    *(docket_name(level) for level in DOCKET_LEVELS),
)
_METHODS = (bounds.CHUNKS, bounds.FILES, bounds.PATCH)
_NAMES = [step.name for step in STEPS]


def write(folder: Path) -> Path:
    """Write README.md about what *folder* has results of; its path."""
    target = folder / "README.md"
    target.write_text("\n".join(_page(folder)) + "\n")
    return target


def _page(folder: Path) -> Iterator[str]:
    results = {name: section.load(folder) for name, section in SECTIONS.items()}
    yield "# Benchmarks"
    yield ""
    yield (
        "Made by `python -m benchmarks.suite`. Each figure is a median, with the lowest and the "
        "highest in parentheses. Ratios compare figures of one run. MB are 10⁶ bytes."
    )
    yield ""
    yield from _machines(results)
    yield from _sizes(folder)
    yield from _registry(folder)
    yield from _push(folder)
    yield from _pull(folder)
    yield from _store(folder)
    yield from _index(folder)
    yield from _throughput(folder)
    yield from _peer_throughput(folder)
    yield from _fleet(folder)
    yield from _findings(folder)
    missing = [name for name, result in results.items() if result is None]
    if missing:
        yield f"Not measured here: {', '.join(missing)}."


def _machines(results: dict[str, Result[Any] | None]) -> Iterator[str]:
    """Each machine and commit once, with the sections that were measured there."""
    by_file: dict[str, list[str]] = {}
    for name, result in results.items():
        if result:
            by_file.setdefault(_described(result.machine), []).append(name)
    for origin, names in by_file.items():
        yield f"- {', '.join(names)}: {origin}"
    yield ""


def _described(machine: Machine) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    return (
        f"commit {machine.commit}, {machine.date}; {machine.processors} × {machine.processor}, "
        f"{machine.memory / 1e9:.0f} GB, Linux {machine.kernel}, {machine.filesystem}; {versions}"
    )


def _sizes(folder: Path) -> Iterator[str]:
    result, finer = SIZES.load(folder), BOUNDS.load(folder)
    if not result:
        return
    levels = LEVELS.load(folder)
    all_rows = result.results + (levels.results if levels else [])
    single_host = {(row.strategy, row.step): row for row in all_rows if row.hosts == 1}
    yield "## What a deploy brings to a host"
    yield ""
    yield "![MB to one host, step by step](sizes.svg)"
    yield ""
    yield (
        "MB at the network interface of one host that has gone through the steps before. In "
        "italics: bounds, what finer methods would bring without any protocol, compressed with "
        "zstd -3. docket's rows are those of `docket pull --layers-only`, by level of compression."
    )
    yield ""
    rows = []
    for strategy in _STRATEGIES:
        if (strategy, _NAMES[0]) in single_host:
            values = [single_host[strategy, name].to_host.median for name in _NAMES]
            rows.append([strategy, *(_mb(value) for value in values)])
    for method in _METHODS if finer else ():
        assert finer
        to_host = {bound.step: bound.to_host for bound in finer.results if bound.method == method}
        rows.append([f"*{method}*", *(f"*{_mb(to_host[name])}*" for name in _NAMES)])
    yield from _table(["", *_NAMES], rows)
    yield (
        f"Goal: no more than {OVERHEAD} × the changed layers' stored bytes + {ALLOWANCE >> 10} KiB "
        "to any host (the median over the hosts, and the worst of them):"
    )
    yield ""
    checks = [row for row in all_rows if row.changed and row.measured]
    rows = [
        [
            row.strategy,
            row.step,
            str(row.hosts),
            _mb(row.changed),
            _against(row, row.to_host.median),
            _against(row, row.to_host.high),
        ]
        for row in checks
    ]
    yield from _table(["", "step", "hosts", "changed, MB", "median", "worst"], rows)


def _against(row: Row, value: float) -> str:
    """*value* as a multiple of the changed bytes, and whether that is within the limit."""
    return f"{value / row.changed:.3f} {_mark(value <= row.limit)}"


def _registry(folder: Path) -> Iterator[str]:
    result = SIZES.load(folder)
    if not result:
        return
    yield "## What leaves the registry"
    yield ""
    yield ("![MB out of the registry by hosts that pull at once](registry.svg)")
    yield ""
    yield (
        "MB at the registry's network interface, for hosts that start at once. Links are not "
        "limited here and all hosts share one machine's processors: the registry is as near as "
        "any host, and idle for hosts that start late. See Fleet for limited links. "
        "*c*: computed from the largest fleet that was measured."
    )
    yield ""
    fleets = sorted({row.hosts for row in result.results})
    rows = []
    for step in _NAMES:
        for strategy in (WHOLE_TAR, GZIP, docket_name(3)):
            by_hosts = {
                r.hosts: r for r in result.results if (r.strategy, r.step) == (strategy, step)
            }
            cells = [
                _mb(by_hosts[hosts].from_registry) + ("" if by_hosts[hosts].measured else " *c*")
                for hosts in fleets
            ]
            rows.append([step, strategy, *cells])
    yield from _table(["step", "", *(f"{hosts} host{'s' * (hosts > 1)}" for hosts in fleets)], rows)


def _push(folder: Path) -> Iterator[str]:
    result = PUSH.load(folder)
    if not result:
        return
    yield "## Push"
    yield ""
    yield "![Seconds of a push](push.svg)"
    yield ""
    plain = result.results[0].plain
    yield (
        f"`app-python:1.0`, {_mb(plain)} MB. CPU is the command's and the engine's that works for "
        "it; *registry* is the registry's. Memory is the largest process's."
    )
    yield ""
    rows = []
    for row in result.results:
        stored = f"{_mb(row.stored)} MB ({row.plain / row.stored:.2f})" if row.stored else ""
        again = row.unchanged.wall.shown(1, 2) if row.stored else ""
        rows.append([row.tool, *_usage(row.cold), again, stored])
    head = [
        "",
        "cold, s",
        "CPU, s",
        "registry, s",
        "peak RSS, MB",
        "unchanged, s",
        "stored (ratio)",
    ]
    yield from _table(head, rows)
    yield from _goals(push.ratios(result.results))


def _pull(folder: Path) -> Iterator[str]:
    result = PULL.load(folder)
    if not result:
        return
    yield "## Pull"
    yield ""
    yield "![Seconds of a pull](pull.svg)"
    yield ""
    rows = []
    for row in result.results:
        for name, used in (("cold", row.cold), ("changed app layer", row.changed)):
            rows.append([row.tool, name, *_usage(used)])
    yield from _table(["", "", "wall, s", "CPU, s", "registry, s", "peak RSS, MB"], rows)
    for row in result.results:
        for image, parts in row.parts.items():
            seconds = ", ".join(f"{name} {value.shown(1, 2)} s" for name, value in parts.items())
            yield f"- `{row.tool} {image}`: {seconds}"
    yield ""
    yield (
        f"A pull into this engine ends with `{pull.DOCKER_LOAD}`: {pull.most(result.results):.2f} "
        f"times faster than `{pull.DOCKER_PULL}` is the most that it can be."
    )
    yield ""
    yield from _goals(pull.ratios(result.results))


def _store(folder: Path) -> Iterator[str]:
    result = STORE.load(folder)
    if not result:
        return
    yield "## Store"
    yield ""
    yield "![MB/s into the store](ingest.svg)"
    yield ""
    yield (
        "MB/s of stored (zstd -3) layers, taken in durably. The limit is the least of the disk "
        "and of hashing and decompression on all processors, measured in the same run."
    )
    yield ""
    rows = [
        [
            f"{row.streams} at a time",
            row.rate.shown(MB),
            row.limit.shown(MB),
            f"{row.ratio.shown(1, 2)} {_mark(row.ratio.median >= 0.8)}",
            *(value.shown(MB) for value in row.parts.values()),
        ]
        for row in result.results.ingest
    ]
    parts = list(result.results.ingest[0].parts)
    yield from _table(["", "ingest", "limit", "ratio (goal 0.8)", *parts], rows)
    family = result.results.family
    yield (
        f"The family's {family.images} images: {_mb(family.archives)} MB as archives, "
        f"{_mb(family.plain)} MB as distinct layers ({family.archives / family.plain:.2f} times "
        f"less), {_mb(family.stored)} MB as stored ({family.archives / family.stored:.2f} times). "
        f"The torrent of an image whose layers are known ({family.torrent_pieces} pieces) takes "
        f"{family.torrent_ms.shown(1, 2)} ms."
    )
    yield ""


def _index(folder: Path) -> Iterator[str]:
    result = INDEX.load(folder)
    if not result:
        return
    yield "## Index"
    yield ""
    yield "![Seconds of a collection by blobs](gc.svg)"
    yield ""
    yield (
        "Rows written through the index itself, images of ten blobs; one in a hundred has no "
        "tag, and empty files to be swept. Memory is the process's own, without the index's "
        "map."
    )
    yield ""
    rows = [
        [
            f"{row.blobs:,}",
            _mb(row.bytes),
            f"{row.blob_lookups:,.0f}",
            f"{row.layer_lookups:,.0f}",
            f"{row.gc_seconds:.1f} {_mark(row.gc_seconds < 60)}",
            f"{row.gc_freed_blobs:,}",
            f"{row.memory / MB:.1f}",
        ]
        for row in result.results
    ]
    head = ["blobs", "index, MB", "blobs/s", "layers/s", "gc, s (goal 60)", "swept", "memory, MB"]
    yield from _table(head, rows)


def _throughput(folder: Path) -> Iterator[str]:
    result = THROUGHPUT.load(folder)
    if not result:
        return
    yield "## Throughput of the registry"
    yield ""
    yield (
        f"MB/s of {_mb(result.results.body)} MB blobs, beside docker-registry "
        "(`python -m benchmarks.load.throughput`)."
    )
    yield ""
    rows = [
        [row.name, row.docket.shown(MB), row.registry.shown(MB), f"{row.ratio:.2f}"]
        for row in result.results.rows
    ]
    yield from _table(["", "docket", "docker-registry", "ratio"], rows)


def _peer_throughput(folder: Path) -> Iterator[str]:
    result = PEER_THROUGHPUT.load(folder)
    if not result:
        return
    yield "## One peer to one peer"
    yield ""
    yield (
        "MB/s of a layer on loopback: docket from the registry's seed, beside curl from uvicorn "
        "and from nginx (`python -m benchmarks.suite.peer_throughput`)."
    )
    yield ""
    docket = result.results["docket"]
    rows = [["docket", docket.shown(MB), "", ""]]
    for name, wanted in peer_throughput.WANTED.items():
        ratio = docket.median / result.results[name].median
        cells = [name, result.results[name].shown(MB), f"{ratio:.2f}"]
        rows.append([*cells, f"{wanted:.2f} {_mark(ratio >= wanted)}"])
    yield from _table(["", "MB/s", "docket / it", "goal, at least"], rows)
    small = result.results["pull"]
    yield (
        f"`docket pull` of {peer_throughput.SMALL} MB, from the command to its end: "
        f"{small.shown(digits=2)} s (goal 1.5 "
        f"{_mark(small.median <= peer_throughput.SMALL_SECONDS)})."
    )
    yield ""


def _fleet(folder: Path) -> Iterator[str]:
    """What the lab of networks with limits has left beside: its own page, else its plots."""
    origin = folder.parent / "fleet"
    if not origin.is_dir():
        return
    yield "## Fleet"
    yield ""
    if (origin / "README.md").exists():
        yield "[Deploys to a fleet over links with limits](../fleet/README.md)"
        yield ""
    for plot in sorted(origin.glob("*.svg")):
        yield f"![{plot.stem}](../fleet/{plot.name})"
        yield ""


def _findings(folder: Path) -> Iterator[str]:
    """What was found out about these results, written by hand."""
    path = folder / "findings.md"
    if path.exists():
        yield "## Findings"
        yield ""
        yield path.read_text().strip()
        yield ""


def _usage(used: ResourceSummary) -> list[str]:
    return [
        used.wall.shown(1, 2),
        used.cpu.shown(1, 2),
        used.served.shown(1, 2),
        used.peak_rss.shown(MB),
    ]


def _goals(ratios: Iterator[tuple[str, float, float]]) -> Iterator[str]:
    rows = [
        [name, f"{ratio:.2f}", f"{wanted:.2f}", _mark(ratio >= wanted)]
        for name, ratio, wanted in ratios
    ]
    yield from _table(["ratio of medians", "measured", "goal, at least", ""], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(cells)} |"
    yield ""


def _mb(size: float) -> str:
    """Megabytes with three digits."""
    megabytes = size / MB
    if megabytes >= 100:
        return f"{megabytes:.0f}"
    return f"{megabytes:.1f}" if megabytes >= 10 else f"{megabytes:.3g}"


def _mark(met: bool) -> str:
    return "✓" if met else "✗"
