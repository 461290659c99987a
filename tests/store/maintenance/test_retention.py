"""Retention: which tags are over, and what gc does about them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from docket.oci.digest import Digest
from docket.store import GcReport, Retention, Store, Tagged
from tests.store.samples import assert_readable, blob_files, hexes, image, push

DAY = 86400.0
NOW = 1000 * DAY
RELEASES = [image("base", f"release {number}") for number in range(6)]


def tag(name: str, *, days: float, repository: str = "app", points_to: str = "") -> Tagged:
    """A tag that was moved *days* ago."""
    return Tagged(repository, name, Digest.of((points_to or name).encode()), NOW - days * DAY)


def over(retention: Retention, *tags: Tagged) -> list[str]:
    """The names of the tags that are over."""
    rows = sorted(tags, key=lambda row: (row.repository, row.tag))
    return [
        f"{expired_tag.repository}:{expired_tag.tag}"
        for expired_tag in retention.expired(rows, now=NOW)
    ]


CHAIN = [tag(f"1.{number}", days=10 - number) for number in range(5)]


@pytest.mark.parametrize(
    ("retention", "expected"),
    [
        (Retention(), []),
        (Retention(protect=("1.0",)), []),
        (Retention(keep=5), []),
        (Retention(keep=2), ["app:1.0", "app:1.1", "app:1.2"]),
        (Retention(keep=0), ["app:1.0", "app:1.1", "app:1.2", "app:1.3", "app:1.4"]),
        (Retention(keep=2, protect=("1.0",)), ["app:1.1", "app:1.2"]),
        (Retention(keep=2, protect=("app:1.[01]",)), ["app:1.2"]),
        (Retention(keep=2, protect=("other:1.*",)), ["app:1.0", "app:1.1", "app:1.2"]),
        (Retention(keep=2, protect=("*",)), []),
        (Retention(keep=2, age=8.5 * DAY), ["app:1.0", "app:1.1"]),
        (Retention(age=7.5 * DAY), ["app:1.0", "app:1.1", "app:1.2"]),
        (Retention(age=1 * DAY), ["app:1.0", "app:1.1", "app:1.2", "app:1.3"]),
    ],
    ids=str,
)
def test_what_is_over(retention: Retention, expected: list[str]) -> None:
    """The newest, the protected and the young stay; by age alone the newest one does."""
    assert over(retention, *CHAIN) == expected


def test_tags_of_one_release_count_once() -> None:
    """A release is what tags point to: "latest" doesn't use up a place of its own."""
    latest = tag("latest", days=6, points_to="1.4")
    assert over(Retention(keep=2), *CHAIN, latest) == ["app:1.0", "app:1.1", "app:1.2"]


def test_a_release_is_as_new_as_its_last_deploy() -> None:
    """After a rollback the release that was rolled back to is the newest."""
    again = tag("rollback", days=0, points_to="1.0")
    assert over(Retention(keep=2), *CHAIN, again) == ["app:1.1", "app:1.2", "app:1.3"]


def test_repositories_are_counted_apart() -> None:
    """Each repository keeps its own newest releases."""
    others_tags = [tag(f"{number}", days=100 - number, repository="other") for number in range(2)]
    assert over(Retention(keep=1), *CHAIN, *others_tags) == [
        "app:1.0",
        "app:1.1",
        "app:1.2",
        "app:1.3",
        "other:0",
    ]


def collected(store: Store, retention: Retention, *, grace: float = 0) -> GcReport:
    """Collect; a dry run before it must have said the same, and changed nothing."""
    before = (store.manifests.tagged(), blob_files(store.location))
    report = store.maintenance.gc(grace=grace, retention=retention, dry_run=True)
    assert (store.manifests.tagged(), blob_files(store.location)) == before
    done = store.maintenance.gc(grace=grace, retention=retention)
    report.dry_run = False
    assert report == done
    return done


def test_gc_keeps_the_newest_releases(store: Store) -> None:
    """What only old releases have goes; what they share with kept ones stays."""
    for number, release in enumerate(RELEASES):
        push(store, "app", release, tag=f"{number}")
    push(store, "other", RELEASES[0], tag="mine")
    report = collected(store, Retention(keep=2, protect=("1",)))
    assert report.tags == ["app:0", "app:2", "app:3"]
    assert report.kept_tags == 4
    assert report.manifests == 3
    assert store.manifests.tags("app") == ["1", "4", "5"]
    kept = [RELEASES[number] for number in (0, 1, 4, 5)]
    expected = {
        name for kept_image in kept for name in hexes(*kept_image.blobs, kept_image.content)
    }
    assert blob_files(store.location) == expected
    assert_readable(store, "other", "mine")
    assert collected(store, Retention(keep=2, protect=("1",))).freed == 0


def test_the_grace_time_goes_on(store: Store) -> None:
    """A tag that is over goes at once; its image is young still, and goes later."""
    for number, release in enumerate(RELEASES[:2]):
        push(store, "app", release, tag=f"{number}")
    report = collected(store, Retention(keep=1), grace=3600)
    assert (report.tags, report.manifests, report.young_manifests) == (["app:0"], 0, 1)
    assert report.freed == 0
    assert collected(store, Retention(keep=1)).manifests == 1


def test_a_tag_that_moved_meanwhile_stays(store: Store) -> None:
    """A release that is deployed again while gc decides is not over."""

    class Slow(Retention):
        """Somebody deploys an old release between the decision and what follows from it."""

        def expired(self, tags: Iterable[Tagged], *, now: float) -> list[Tagged]:
            expired_tags = super().expired(tags, now=now)
            push(store, "app", RELEASES[0], tag="0")
            return expired_tags

    for number, release in enumerate(RELEASES[:3]):
        push(store, "app", release, tag=f"{number}")
    assert store.maintenance.gc(grace=0, retention=Slow(keep=1)).tags == ["app:1"]
    assert_readable(store, "app", "0")
