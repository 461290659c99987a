"""Build the family of real images as docker archives; needs root, mmdebstrap, pip and npm.

    python -m tests.support.image_family.build [--small] [--only NAME:TAG ...] --out DIR

An image has four layers: a Debian base, system packages, pinned PyPI or npm packages, the app.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.support.debian import PartMissing, StepFailed, bootstrap, require, run
from tests.support.image_family.catalogue import NPM_BEFORE, Recipe, family
from tests.support.image_family.layers import Layer, Tree, folder, write_archive, write_layer
from tests.support.locks import exclusive

# Part of every recipe's hash: raise it when this package writes other bytes than before.
FORMAT = 1

_SUITE = "bookworm"
_PIP_TARGETS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_PYTHON_PLACE = "usr/local/lib/python3.11/dist-packages"
_NODE_PLACE = "srv/node_modules"
_APP_PLACE = "srv/app"
_MAIN = {
    "python": """import sys
sys.path.insert(0, "/srv/app/lib")
import {module}
print("{image} runs {module}", {module}.__file__)
""",
    "javascript": """var text = typeof require === "function" && typeof read === "undefined"
  ? require("fs").readFileSync("/srv/app/package.json", "utf8") : read("/srv/app/package.json");
var found = JSON.parse(text);
(typeof print === "function" ? print : console.log)("{image} runs " + found.name + " " +
  found.version);
""",
}


def build(out: Path, *, small: bool, only: Sequence[str] = ()) -> dict[str, Path]:
    """Build the images in *only*, or all, into *out*; return their archives by name:tag.

    An archive that is there and was built by the same recipe stays as it is. Two callers may
    build into one folder at once. Raises PartMissing, StepFailed, or ValueError for a name
    that is not in the family.
    """
    recipes = {recipe.image: recipe for recipe in family(small=small)}
    if unknown := sorted(set(only) - recipes.keys()):
        raise ValueError(f"no image {', '.join(unknown)}; there are {', '.join(recipes)}")
    chosen = [recipe for name, recipe in recipes.items() if not only or name in only]
    out.mkdir(parents=True, exist_ok=True)
    with exclusive(out / ".lock"):
        stale = [recipe for recipe in chosen if not _is_built(out, recipe)]
        if stale:
            _require_all()
            _build(out, stale)
    return {recipe.image: _archive(out, recipe) for recipe in chosen}


def main(argv: Sequence[str] | None = None) -> int:
    """Build from the command line; print each archive."""
    parser = argparse.ArgumentParser(
        prog="tests.support.image_family.build", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--small", action="store_true", help="the same steps with small packages")
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="NAME:TAG", help="build only these"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where archives go")
    options = parser.parse_args(argv)
    try:
        built = build(options.out, small=options.small, only=options.only)
    except (PartMissing, StepFailed, ValueError) as error:
        print(f"tests.support.image_family.build: {error}", file=sys.stderr)
        return 1
    for image, path in built.items():
        print(f"{image}\t{path}\t{path.stat().st_size / 1e6:.1f} MB")
    return 0


def _require_all() -> None:
    require("npm", "npm")
    require("mmdebstrap", "mmdebstrap")
    if importlib.util.find_spec("pip") is None:
        raise PartMissing(f"pip of {sys.executable}", "python3-pip")
    if os.geteuid() != 0:
        raise StepFailed("images hold files of root's: run this as root")
    if platform.machine() != "x86_64":
        raise StepFailed(f"images are made for x86_64, and this machine is {platform.machine()}")


def _build(out: Path, recipes: Sequence[Recipe]) -> None:
    """Fetch everything two at a time, then write layers, then archives."""
    cellar = _Cellar(out / ".parts")
    fetches: dict[Path, Callable[[], None]] = {}
    for recipe in recipes:
        fetches.update(cellar.fetches(recipe))
    with ThreadPoolExecutor(2) as pool:
        for done in [
            pool.submit(fetch)
            for folder_inside, fetch in fetches.items()
            if not folder_inside.exists()
        ]:
            done.result()
    for recipe in recipes:
        target = _archive(out, recipe)
        environment = ["PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"]
        write_archive(
            target,
            image=recipe.image,
            layers=cellar.layers(recipe),
            settings={"Entrypoint": list(recipe.entrypoint), "Env": environment},
        )
        _mark(out, recipe).write_text(_key("image", recipe) + "\n")


class _Cellar:
    """What was fetched and the layers made of it, each under the hash of what went into it."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self._root = root

    def fetches(self, recipe: Recipe) -> dict[Path, Callable[[], None]]:
        """The places *recipe* needs, and for each what fills it."""
        base, full = self._trees(recipe)
        packages, app = self._packages(recipe), self._app(recipe)
        fetch = _fetch_wheels if recipe.language == "python" else _fetch_modules
        unpack = _fetch_wheels if recipe.language == "python" else _fetch_module
        return {
            base: lambda: _fetch_tree(base, recipe, recipe.base),
            full: lambda: _fetch_tree(full, recipe, recipe.base + recipe.system),
            packages: lambda: fetch(packages, recipe.packages),
            app: lambda: unpack(app, (recipe.app,)),
        }

    def layers(self, recipe: Recipe) -> list[Layer]:
        """The four layers of *recipe*, bottom first; everything must have been fetched."""
        base, full = self._trees(recipe)
        papers = recipe.variant != "extract"
        packages, app = self._packages(recipe), self._app(recipe)
        steps: list[tuple[str, Path, Callable[[Path], None]]] = [
            (
                f"mmdebstrap {' '.join(recipe.base)}",
                base,
                lambda to: _whole(to, base, papers=papers),
            ),
            (
                f"apt-get install {' '.join(recipe.system)}",
                full,
                lambda to: _changes(to, base, full, papers=papers),
            ),
            (
                f"install {' '.join(recipe.packages)}"[:400],
                packages,
                lambda to: write_layer(to, folder(packages, _place(recipe))),
            ),
            (f"install {recipe.app}", app, lambda to: _app_layer(to, app, recipe)),
        ]
        layers = []
        for step, source, write in steps:
            # The app's start file names the image, so its layer is never shared.
            suffix = f".{recipe.image.replace(':', '-')}" if source == app else ""
            path = self._root / f"{source.name.removesuffix('.tar')}{suffix}.layer.tar"
            if not path.exists():
                write(path)
            layers.append(Layer(path, step))
        return layers

    def _trees(self, recipe: Recipe) -> tuple[Path, Path]:
        base = self._root / f"{_key('tree', recipe.variant, recipe.base)}.tar"
        full = self._root / f"{_key('tree', recipe.variant, recipe.base, recipe.system)}.tar"
        return base, full

    def _packages(self, recipe: Recipe) -> Path:
        return self._root / _key("packages", recipe.language, recipe.packages, NPM_BEFORE)

    def _app(self, recipe: Recipe) -> Path:
        return self._root / _key("app", recipe.language, recipe.app)


def _fetch_tree(target: Path, recipe: Recipe, packages: Sequence[str]) -> None:
    bootstrap(_SUITE, target, variant=recipe.variant, include=packages)


def _fetch_wheels(target: Path, pins: Sequence[str]) -> None:
    """Unpack the wheels of *pins* as pip would, but for what pip adds of the machine."""
    with _becoming(target) as folder_inside, tempfile.TemporaryDirectory() as downloads:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", downloads]
        platforms = [word for name in _PIP_TARGETS for word in ("--platform", name)]
        binary = ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp"]
        run([*pip, *platforms, *binary, *pins])
        for wheel in sorted(Path(downloads).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder_inside)  # noqa: S202  # zipfile keeps members inside
        for extra in folder_inside.glob("*.data"):
            for library in extra.glob("*lib"):
                shutil.copytree(library, folder_inside, dirs_exist_ok=True)
            shutil.rmtree(extra)


def _fetch_modules(target: Path, pins: Sequence[str]) -> None:
    with _becoming(target) as folder_inside, tempfile.TemporaryDirectory() as prefix:
        npm = ["npm", "install", "--ignore-scripts", "--no-package-lock", "--no-bin-links"]
        quiet = ["--no-audit", "--no-fund", "--loglevel=error", f"--prefix={prefix}"]
        machine = ["--os=linux", "--cpu=x64", "--libc=glibc", f"--before={NPM_BEFORE}"]
        run([*npm, *quiet, *machine, *pins])
        modules = Path(prefix, "node_modules")
        modules.joinpath(".package-lock.json").unlink(missing_ok=True)
        shutil.copytree(modules, folder_inside, symlinks=True, dirs_exist_ok=True)


def _fetch_module(target: Path, pins: Sequence[str]) -> None:
    with _becoming(target) as folder_inside, tempfile.TemporaryDirectory() as downloads:
        run(["npm", "pack", "--loglevel=error", f"--pack-destination={downloads}", *pins])
        for package in Path(downloads).glob("*.tgz"):
            with tarfile.open(package) as archive:
                archive.extractall(folder_inside, filter="data")
        # npm's archives hold everything in one folder, most often "package".
        for inner in list(folder_inside.iterdir()):
            shutil.copytree(inner, folder_inside, dirs_exist_ok=True)
            shutil.rmtree(inner)


def _whole(target: Path, base: Path, *, papers: bool) -> None:
    with Tree(base, papers=papers) as tree:
        write_layer(target, tree.whole())


def _changes(target: Path, base: Path, full: Path, *, papers: bool) -> None:
    with Tree(base, papers=papers) as below, Tree(full, papers=papers) as tree:
        write_layer(target, tree.changes(below))


def _app_layer(target: Path, app: Path, recipe: Recipe) -> None:
    with tempfile.TemporaryDirectory() as folder_inside:
        python = recipe.language == "python"
        shutil.copytree(
            app, Path(folder_inside, "lib") if python else folder_inside, dirs_exist_ok=True
        )
        text = _MAIN[recipe.language].replace("{image}", recipe.image)
        module = recipe.app.partition("==")[0]
        main = Path(folder_inside, "main.py" if python else "main.js")
        main.write_text(text.replace("{module}", module))
        write_layer(target, folder(Path(folder_inside), _APP_PLACE))


def _place(recipe: Recipe) -> str:
    return _PYTHON_PLACE if recipe.language == "python" else _NODE_PLACE


@contextmanager
def _becoming(target: Path) -> Iterator[Path]:
    """An empty folder that is named *target* once its content is whole."""
    partial = target.with_name(f".partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    yield partial
    partial.rename(target)


def _is_built(out: Path, recipe: Recipe) -> bool:
    mark = _mark(out, recipe)
    return (
        _archive(out, recipe).exists()
        and mark.exists()
        and mark.read_text().strip() == _key("image", recipe)
    )


def _archive(out: Path, recipe: Recipe) -> Path:
    return out / f"{recipe.image.replace(':', '-')}.tar"


def _mark(out: Path, recipe: Recipe) -> Path:
    return out / f".{recipe.image.replace(':', '-')}.recipe"


def _key(kind: str, *facts: object) -> str:
    text = json.dumps([FORMAT, _SUITE, *map(repr, facts)])
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


if __name__ == "__main__":
    raise SystemExit(main())
