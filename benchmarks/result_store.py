"""Runs that are kept in a folder as JSON, beside a page about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import Machine
from tests.support.locks import exclusive

Run = dict[str, Any]

PAGE = "README.md"


class InvalidResults(Exception):
    """The file at *path* holds something else than runs."""

    def __init__(self, path: Path, reason: Exception) -> None:
        super().__init__(f"{path} has no runs: {reason!r}")
        self.path = path


@dataclass(frozen=True, slots=True)
class ResultStore:
    """A *file* with runs, sorted by their *key*; *page* gives the lines of the page about them.

    Of runs with the same key the last one is kept.
    """

    file: str
    key: Callable[[Run], tuple[Any, ...]]
    page: Callable[[Sequence[Run]], Iterator[str]]

    def load(self, folder: Path) -> list[Run]:
        """All runs that *folder* has, sorted. Raises InvalidResults."""
        path = folder / self.file
        if not path.exists():
            return []
        try:
            return sorted(json.loads(path.read_text())["runs"], key=self.key)
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidResults(path, error) from error

    def keep(self, run: Run, machine: Machine, folder: Path) -> None:
        """Put *run*, made on *machine*, into *folder* in place of one with its key; write the page.

        An interruption, or another process that adds a run meanwhile, loses none. Raises
        InvalidResults; then nothing is written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder):
            runs = [stored for stored in self.load(folder) if self.key(stored) != self.key(run)]
            runs.append({**run, "machine": asdict(machine)})
            _write(folder / self.file, _text(sorted(runs, key=self.key)))
            self.write(folder)

    def write(self, folder: Path) -> None:
        """Write the page about the runs that *folder* has. Raises InvalidResults."""
        _write(folder / PAGE, "\n".join(self.page(self.load(folder))) + "\n")


def table(columns: Mapping[str, Callable[[Run], str]], runs: Sequence[Run]) -> Iterator[str]:
    """A row for each of *runs*, without the columns in which none has anything."""
    rows = [[cell(run) for cell in columns.values()] for run in runs]
    filled = [number for number in range(len(columns)) if any(row[number] for row in rows)]
    for cells in (list(columns), ["---"] * len(columns), *rows):
        yield f"| {' | '.join(cells[number] for number in filled)} |"


def commands(program: str, options: Callable[[Run], str], runs: Sequence[Run]) -> Iterator[str]:
    """Each commit and machine, and the commands of *program* by which *runs* were made there.

    Runs with the same *options* share one, and differ in the number of hosts.
    """
    by_file: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        hosts = by_file.setdefault(_origin(run), {}).setdefault(options(run), [])
        hosts.append(str(run["hosts"]))
    for origin, hosts_by_options in by_file.items():
        yield f"- {origin}:"
        for words, hosts in hosts_by_options.items():
            yield f"  - `python -m {program} --hosts {' '.join(hosts)} {words}`"


def commit(run: Run) -> str:
    """The commit at which *run* was made, if it was kept; with ``+`` after changes to it."""
    return str(run.get("machine", {}).get("commit", ""))


def _origin(run: Run) -> str:
    machine = run.get("machine")
    if not machine:
        return "commit and machine were not kept"
    return (
        f"commit {commit(run)}, {machine['date']}; {machine['processors']} × "
        f"{machine['processor']}, Linux {machine['kernel']}"
    )


def _text(runs: Sequence[Run]) -> str:
    # a line for each, so that differences can be read
    lines = ",\n".join(json.dumps(run) for run in runs)
    return f'{{"runs": [\n{lines}\n]}}\n'


def _write(path: Path, text: str) -> None:
    """Replace *path* at once: a reader gets the old content, or all of *text*."""
    partial = path.with_name(f".{path.name}.new")
    partial.write_text(text)
    partial.rename(path)
