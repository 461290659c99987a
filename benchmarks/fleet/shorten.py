"""A shorter image: the first layers of one, for what length does to a deploy."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

from benchmarks.demo import archived

_MARK = "-first-"


class TooFewLayers(ValueError):
    """The image has fewer."""


def first_layers(archive: Path, count: int, folder: Path) -> Path:
    """An archive in *folder* of the image in *archive* with *count* of its layers, base first.

    Raises `TooFewLayers`.
    """
    with tarfile.open(archive) as tar:
        member = tar.extractfile("manifest.json")
        assert member
        image = json.load(member)[0]
        names = image["Layers"]
        if count > len(names):
            raise TooFewLayers(f"{archive} has {len(names)} layers, not {count}")
        layers = {}
        for number, name in enumerate(names[:count]):
            content = tar.extractfile(name)
            assert content
            layers[name] = folder / f"layer-{number}.tar"
            with layers[name].open("wb") as file:
                shutil.copyfileobj(content, file)
    target = folder / f"{archive.stem}{_MARK}{count}.tar"
    short = archived(target, f"{image['RepoTags'][0]}{_MARK}{count}", layers)
    for path in layers.values():
        path.unlink()
    return short.archive


def made_of(name: str) -> tuple[str, str]:
    """The archive that the one called *name* is made of, and of how many layers; all: nothing."""
    whole, mark, count = name.removesuffix(".tar").partition(_MARK)
    return (f"{whole}.tar", count) if mark else (name, "")
