"""Which module may import which, and how long a module may be (docs/design.md § modules)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "docket").rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))
TESTS = sorted(
    path for path in (ROOT / "tests").rglob("*.py") if ROOT / "tests/benchmarks" not in path.parents
)

VALUES = {
    "engine_address",
    "errors",
    "oci",
    "pieces",
    "wire",
    "progress",
    "rate_limit",
    "config",
    "signals",
}

TIERS = (
    VALUES,
    {"compression"},
    {"decompression", "hooks"},
    {"archive", "store", "torrent", "engine", "remote"},
    {"seeder", "transfer", "fleet"},
    {"agent", "upstream"},
    {"api"},
    {"daemon"},
    {"commands"},
    {"cli"},
)
"""Units of docket, a module or a package each; a unit imports from the tiers before its own."""

HOMES = {
    "click": {"docket/cli.py", "docket/commands"},
    "docker": {"docket/engine.py"},
    "libtorrent": {"docket/torrent/peer"},
    "lmdb": {"docket/store/index/environment.py"},
    "rich": {"docket/commands/terminal.py", "docket/commands/fleet/view.py"},
    "starlette": {"docket/api", "docket/daemon"},
    "torf": {"docket/torrent/metainfo.py"},
    "urllib3": {"docket/remote", "docket/engine.py"},
    "uvicorn": {"docket/api", "docket/daemon"},
    "zstandard": {"docket/compression.py", "docket/decompression.py"},
}
"""Which modules may import a package from outside."""

MOST_LINES = 450
MOST_MODULES = 14
LONGEST_CHAIN = 8


def name_of(path: Path) -> str:
    """The module's path below the root."""
    return path.relative_to(ROOT).as_posix()


def unit_of(name: str) -> str:
    """The first part below ``docket``: a module, or a package as one."""
    return name.removeprefix("docket.").partition(".")[0] if name != "docket" else ""


def imports(path: Path) -> Iterator[str]:
    """The full name of each import in a module; ``docket.x`` for ``from docket import x``."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} has a relative import"
            if node.module in ("docket", "tests"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def tier_of(unit: str) -> int:
    """The number of the tier that *unit* is in."""
    (number,) = (number for number, tier in enumerate(TIERS) if unit in tier)
    return number


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    """A unit imports only from lower tiers; units of one tier never import each other."""
    unit = path.relative_to(ROOT / "docket").parts[0].removesuffix(".py")
    ours = {unit_of(name) for name in imports(path) if name.partition(".")[0] == "docket"}
    if unit == "__init__":
        assert ours == set()
        return
    allowed = set().union(*TIERS[: tier_of(unit)]) | {unit, "__version__"}
    if unit in VALUES:
        allowed |= VALUES  # values know each other
    assert ours <= allowed, f"{unit} may not import {sorted(ours - allowed)}"


@pytest.mark.parametrize("path", BENCHMARKS, ids=name_of)
def test_benchmarks_import_only_the_support_of_tests(path: Path) -> None:
    """Benchmarks share processes, namespaces and images with tests, and no test."""
    of_tests = {name for name in imports(path) if name.partition(".")[0] == "tests"}
    assert all(name.startswith("tests.support") for name in of_tests), of_tests


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_tests_import_no_benchmark(path: Path) -> None:
    """Only tests/benchmarks, the benchmarks' own tests, import benchmarks."""
    assert not {name for name in imports(path) if name.partition(".")[0] == "benchmarks"}


@pytest.mark.parametrize("package", HOMES)
def test_a_package_from_outside_is_imported_in_one_area(package: str) -> None:
    """Each package from outside is imported by one module, or by two."""
    users = {
        name_of(path)
        for path in MODULES
        if any(name.partition(".")[0] == package for name in imports(path))
    }
    assert users, f"no module imports {package} any more"
    strangers = {
        user
        for user in users
        if not any(user == home or user.startswith(f"{home}/") for home in HOMES[package])
    }
    assert strangers == set()


def test_the_engine_module_takes_exceptions_of_urllib3_alone() -> None:
    """The engine's API is called through the docker package, not by HTTP requests of our own."""
    tree = ast.parse((ROOT / "docket" / "engine.py").read_bytes())
    used = {
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("urllib3.")
    }
    assert used <= {"urllib3.exceptions", "urllib3.exceptions.HTTPError"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_has_a_docstring(path: Path) -> None:
    """Style 1: a module opens with a sentence on what it is for."""
    docstring = ast.get_docstring(ast.parse(path.read_bytes()))
    assert docstring
    assert docstring.splitlines()[0].endswith((".", "?", "!", ":"))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_too_long(path: Path) -> None:
    """Style 1: when two stories share a file, it is split."""
    assert len(path.read_text().splitlines()) <= MOST_LINES


PACKAGES = sorted({path.parent for path in MODULES})


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_no_package_has_too_many_modules(package: Path) -> None:
    """Style 1: a package whose modules can't be surveyed at a glance is divided."""
    modules = [path for path in package.glob("*.py") if path.name != "__init__.py"]
    folders = [path for path in package.iterdir() if (path / "__init__.py").exists()]
    assert len(modules) <= MOST_MODULES
    assert len(folders) <= MOST_MODULES


def test_the_store_is_shallow() -> None:
    """Modules § store: from `Store` down, no more modules stand on each other than these."""
    needed = {
        name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path
        for path in MODULES
        if name_of(path).startswith("docket/store/")
    }

    @lru_cache
    def chain(module: str) -> tuple[str, ...]:
        below = {name for name in imports(needed[module]) if name in needed and name != module}
        return (module, *max(map(chain, below), key=len, default=()))

    longest = max(map(chain, needed), key=len)
    assert len(longest) <= LONGEST_CHAIN, " -> ".join(longest)


def test_only_the_api_is_asynchronous() -> None:
    """Decision 10: the core is synchronous; ``async`` is in the API and in its server alone."""
    kinds = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    asynchronous = {
        name_of(path)
        for path in MODULES
        if any(isinstance(node, kinds) for node in ast.walk(ast.parse(path.read_bytes())))
    }
    assert all(name.startswith(("docket/api/", "docket/daemon/")) for name in asynchronous)


CHANGES = {
    *("chmod", "fallocate", "fdatasync", "fsync", "ftruncate", "hardlink_to", "link", "mkdir"),
    *("posix_fallocate", "pwrite", "pwritev", "rename", "rmdir", "rmtree", "symlink", "symlink_to"),
    *("touch", "truncate", "unlink", "write_bytes", "write_text"),
}
"""Functions and methods that change files; `os.write` and files open for writing apart."""

ONE_PLACE = {"docket/store/filesystem.py", "docket/store/lock.py"}


@pytest.mark.parametrize(
    "path", [path for path in MODULES if name_of(path).startswith("docket/store/")], ids=name_of
)
def test_the_store_changes_files_in_one_place(path: Path) -> None:
    """Invariant 1: a test can stop the store before each change, because `Filesystem` makes all of
    them.

    (The lock file is no part of what is stored.)
    """
    if name_of(path) in ONE_PLACE:
        return
    own = {"self._filesystem", "filesystem", "self"}
    changes = {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in CHANGES
        and ast.unparse(node.func.value) not in own
    }
    assert changes == set()


def test_the_command_line_loads_no_store_swarm_or_engine() -> None:
    """An unchanged push spends most of its time on imports: it imports only what it uses."""
    loaded = "import sys, docket.cli, docket.transfer.push; print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True).stdout
    assert {"docket.cli", "docket.transfer.push"} <= set(printed.decode().split())
    assert not {"docker", "libtorrent", "lmdb", "starlette"} & set(printed.decode().split())
