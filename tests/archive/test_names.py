"""Which image of an archive a name means: every spelling that engines write, and a sure choice."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from docket.archive import read
from docket.errors import ImageNotInArchive
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor
from tests.support.images import (
    NAME_ANNOTATION,
    REF_ANNOTATION,
    TinyImage,
    docker_save_legacy,
    tar,
    tiny_image,
)


def named(name: str) -> TinyImage:
    """An image of its own under *name*."""
    return tiny_image(name.replace("/", "_"), 1, name=name)


def chosen(names: list[str], wanted: str | None, spool: Path, *, image: str | None = None) -> int:
    """The number of the image that is read of an archive of images under *names*."""
    images = [named(name) for name in names]
    archived = read(io.BytesIO(docker_save_legacy(images)), spool=spool, name=wanted, image=image)
    return [image.config for image in images].index(archived.config)


PRIVATE = ["reg.example.com:5000/app:1", "reg.example.com:5000/web:1"]
HUB = ["docker.io/library/app:1", "docker.io/team/web:1"]
PODMAN = ["localhost/app:1", "localhost/web:1"]
TEAMS = ["reg.example.com/red/app:1", "reg.example.com/blue/app:1"]

MATCHES = [
    (PRIVATE, "app:1", 0),
    (PRIVATE, "web:1", 1),
    (PRIVATE, "reg.example.com:5000/web:1", 1),
    (HUB, "app:1", 0),
    (HUB, "library/app:1", 0),
    (HUB, "index.docker.io/library/app:1", 0),
    (HUB, "team/web:1", 1),
    (HUB, "docker.io/team/web:1", 1),
    (["app:1", "web:1"], "docker.io/library/web:1", 1),
    (["app:1", "web:1"], "localhost/web:1", 1),
    (PODMAN, "web:1", 1),
    (PODMAN, "docker.io/library/app:1", 0),
    (TEAMS, "blue/app:1", 1),
    (["app:latest", "app:1"], "app", 0),
    (["reg:5000/app:1", "app:1"], "app:1", 1),
    (["reg:5000/app:1", "localhost/app:1"], "app:1", 1),
    (["a/app:1", "reg:5000/a/app:1"], "reg:5000/a/app:1", 1),
]


@pytest.mark.parametrize(("names", "asked", "number"), MATCHES)
@pytest.mark.parametrize("sure", [False, True], ids=["as pushed", "--image"])
def test_a_name_in_any_spelling(
    names: list[str], asked: str, number: int, sure: bool, tmp_path: Path
) -> None:
    """With and without registry, Docker Hub's prefixes, podman's localhost: the nearest counts."""
    assert chosen(names, asked, tmp_path, image=asked if sure else None) == number


OPEN = [
    (PRIVATE, "other:1"),
    (PRIVATE, "app:2"),
    (PRIVATE, "reg.example.com/web:2"),
    (TEAMS, "app:1"),
    (["one.example/app:1", "two.example/app:1"], "app:1"),
    (PRIVATE, None),
]


@pytest.mark.parametrize(("names", "asked"), OPEN)
def test_an_open_choice_lists_the_images(
    names: list[str], asked: str | None, tmp_path: Path
) -> None:
    """None is guessed; the error has all names as --image takes them, and says so."""
    with pytest.raises(ImageNotInArchive, match="choose one with --image") as caught:
        chosen(names, asked, tmp_path)
    assert caught.value.names == names
    for number, name in enumerate(caught.value.names):
        assert chosen(names, "push:1", tmp_path, image=name) == number


def test_numbers_and_ids(tmp_path: Path) -> None:
    """skopeo's @N, an ID as ``docker images`` shows it, and a digest choose whatever the names."""
    for number, name in enumerate(TEAMS):
        config = Digest.of(named(name).config)
        for choice in (f"@{number}", config.short, config.hex, str(config), f"x@{config}"):
            assert chosen(TEAMS, "app:9", tmp_path, image=choice) == number


@pytest.mark.parametrize("image", ["@2", "@-1", "@٠", "nobody:1", "0" * 12, "", "@"])
def test_a_sure_choice_is_never_guessed(image: str, tmp_path: Path) -> None:
    """--image must match, even in an archive of one image."""
    with pytest.raises(ImageNotInArchive):
        chosen(["only:1"], "only:1", tmp_path, image=image)


def test_images_without_names(tmp_path: Path) -> None:
    """What has no name is listed and chosen by its number."""
    images = [named("a:1"), named("b:1")]
    blobs: dict[str, bytes] = {}
    rows = []
    for image in images:
        listed, more = image.blobs()
        rows.append(listed)
        blobs |= more
    content = tar({**blobs, "index.json": manifest.image_index(rows)})
    with pytest.raises(ImageNotInArchive) as caught:
        read(io.BytesIO(content), spool=tmp_path, name="a:1")
    assert caught.value.names == ["@0", "@1"]
    second = read(io.BytesIO(content), spool=tmp_path, image="@1")
    assert second.config == images[1].config
    by_digest = read(io.BytesIO(content), spool=tmp_path, image=str(rows[1].digest))
    assert by_digest.config == images[1].config


ANNOTATIONS = [
    {NAME_ANNOTATION: "reg.example.com:5000/app:1", REF_ANNOTATION: "1"},
    {REF_ANNOTATION: "reg.example.com:5000/app:1"},
    {REF_ANNOTATION: "localhost/app:1"},
    {NAME_ANNOTATION: "docker.io/library/app:1"},
    {REF_ANNOTATION: "1"},
]


@pytest.mark.parametrize("annotations", ANNOTATIONS)
def test_annotations_of_a_layout(annotations: dict[str, str], tmp_path: Path) -> None:
    """containerd, podman, skopeo and buildx: index.json names images in two annotations."""
    app, second_image = named("app:1"), named("other:2")
    row, blobs = app.blobs()
    second, more = second_image.blobs()
    rows = [
        Descriptor(second.media_type, second.digest, second.size, {REF_ANNOTATION: "other:2"}),
        Descriptor(row.media_type, row.digest, row.size, annotations),
    ]
    content = tar({**blobs, **more, "index.json": manifest.image_index(rows)})
    assert read(io.BytesIO(content), spool=tmp_path, name="app:1").config == app.config


def test_a_name_with_a_digest(tmp_path: Path) -> None:
    """containerd writes names with a digest; ``name:tag@digest`` chooses by it."""
    app, second_image = named("app:1"), named("other:2")
    (row, blobs), (second, more) = app.blobs(), second_image.blobs()
    rows = [
        Descriptor(
            listed.media_type,
            listed.digest,
            listed.size,
            {NAME_ANNOTATION: f"reg.io/x@{listed.digest}"},
        )
        for listed in (second, row)
    ]
    content = tar({**blobs, **more, "index.json": manifest.image_index(rows)})
    for wanted in (f"new:1@{row.digest}", f"x@{row.digest}"):
        assert read(io.BytesIO(content), spool=tmp_path, name=wanted).config == app.config


def test_a_list_without_tags(tmp_path: Path) -> None:
    """``docker save ID``: RepoTags is null or empty, and the only image is taken."""
    image = named("x:1")
    row = {"Config": "c.json", "Layers": ["l.tar"]}
    rows: list[dict[str, object]] = [{**row, "RepoTags": None}, {**row, "RepoTags": []}, {**row}]
    for listed in rows:
        members = {"c.json": image.config, "l.tar": image.layers[0]}
        content = tar({**members, "manifest.json": json.dumps([listed]).encode()})
        assert read(io.BytesIO(content), spool=tmp_path, name="any:1").names == ()
