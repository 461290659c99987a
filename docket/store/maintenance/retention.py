"""Retention: which tags have expired, so that gc frees what only they name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby

from docket.oci.digest import Digest
from docket.store.types import Tagged


@dataclass(frozen=True, slots=True)
class Retention:
    """Which tags stay. A release is what one or more tags of a repository point to.

    The newest *keep* releases of a repository stay, a tag that matches one of *protect* stays (a
    glob of tags, or of ``repository:tag``), and so does one that was moved less than *age* seconds
    ago. What none of these keeps has expired. Without *keep* and *age* nothing ever expires; with
    *age* alone the newest release of a repository stays.

    Images of other registries have a rule of their own: they expire when nobody has pulled them for
    *unused* seconds; without it, never.
    """

    keep: int | None = None
    protect: tuple[str, ...] = ()
    age: float | None = None
    unused: float | None = None

    def expired(self, tags: Iterable[Tagged], *, now: float) -> list[Tagged]:
        """Those of *tags*, sorted by repository, that have expired by *now*, seconds since 1970.

        *tags* are those of releases: tags that are attached to an image go with it.
        """
        if self.keep is None and self.age is None:
            return []
        kept = 1 if self.keep is None else self.keep
        expired: list[Tagged] = []
        for _, group in groupby(tags, key=lambda tag: tag.repository):
            rows = list(group)
            newest = set(_releases(rows)[:kept])
            expired += (r for r in rows if r.digest not in newest and self._is_expired(r, now))
        return expired

    def unused_tags(self, pulled: Iterable[tuple[Tagged, float]], *, now: float) -> list[Tagged]:
        """Those of other registries' tags that have expired; *pulled* has their last pulls."""
        if self.unused is None:
            return []
        horizon = now - self.unused
        return [
            tag
            for tag, seconds in pulled
            if seconds < horizon and not any(_matches(tag, glob) for glob in self.protect)
        ]

    def _is_expired(self, tag: Tagged, now: float) -> bool:
        if self.age is not None and tag.moved > now - self.age:
            return False
        return not any(_matches(tag, glob) for glob in self.protect)


def _releases(tags: Sequence[Tagged]) -> list[Digest]:
    """What *tags* point to, each once, the last deployed first."""
    by_time = sorted(tags, key=lambda tag: tag.moved, reverse=True)
    return list(dict.fromkeys(tag.digest for tag in by_time))


def _matches(tag: Tagged, glob: str) -> bool:
    name = f"{tag.repository}:{tag.tag}" if ":" in glob else tag.tag
    return fnmatchcase(name, glob)
