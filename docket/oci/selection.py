"""Choosing an image of an index: by platform, through nested indexes, by configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice

from docket.errors import InvalidInput, InvalidManifest, NotFound
from docket.oci.digest import Digest
from docket.oci.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    parse,
    parse_config,
)

Read = Callable[[Descriptor], bytes]
"""Gives the bytes of a manifest, index or configuration, checked; raises `NotFound`."""

MAX_DEPTH = 4
"""Indexes within each other, beside the first."""

_MAX_IMAGES = 10_000
# each costs two reads, maybe over the network
_MAX_CONFIGS = 100
_MAX_SHOWN = 20


def choose_image(index: Index, wanted: Platform, read: Read) -> Descriptor:
    """The manifest of *index* that runs best on *wanted*.

    Entries that say their platform come first, the others by what their configuration says; of
    equals, the first. Raises `InvalidManifest` with what there is.
    """
    images = list(islice(image_manifests(index, read, wanted=wanted), _MAX_IMAGES))
    labelled = [(image, image.platform) for image in images if image.platform]
    unlabelled = [image for image in images if not image.platform]
    chosen = _best(labelled, wanted) or _best(_by_config(unlabelled, read), wanted)
    if chosen is None:
        raise InvalidManifest(_nothing_for(index, wanted, read))
    return chosen


def image_manifests(
    index: Index, read: Read, *, wanted: Platform | None = None
) -> Iterator[Descriptor]:
    """The manifests that *index* and the indexes in it list, each once, in their order.

    Attestations, plain blobs (BuildKit's cache), and nested indexes that can't be read are left
    out; so are nested indexes for other platforms than *wanted*, if that is given.
    """
    yield from _walk(index, read, wanted, set(), 0)


def config_platform(image: Descriptor, read: Read) -> Platform | None:
    """The platform that an image's configuration says; None when it is no image, or isn't here."""
    with suppress(InvalidInput, NotFound):
        manifest = parse(read(image), content_type=image.media_type)
        if not isinstance(manifest, Manifest) or not manifest.is_image:
            return None
        if manifest.config.size <= MAX_MANIFEST:
            return parse_config(read(manifest.config)).platform
    return None


def _walk(
    index: Index, read: Read, wanted: Platform | None, seen: set[Digest], depth: int
) -> Iterator[Descriptor]:
    for entry in index.manifests:
        if entry.is_attestation or entry.digest in seen:
            continue
        if entry.media_type in MANIFEST_TYPES:
            seen.add(entry.digest)
            yield entry
        elif entry.media_type in INDEX_TYPES and depth < MAX_DEPTH:
            if wanted and entry.platform and not entry.platform.serves(wanted):
                continue
            seen.add(entry.digest)
            if nested := _nested(entry, read):
                yield from _walk(nested, read, wanted, seen, depth + 1)


def _nested(entry: Descriptor, read: Read) -> Index | None:
    with suppress(InvalidInput, NotFound):
        parsed = parse(read(entry), content_type=entry.media_type)
        return parsed if isinstance(parsed, Index) else None
    return None


def _by_config(images: Iterable[Descriptor], read: Read) -> list[tuple[Descriptor, Platform]]:
    platforms = ((image, config_platform(image, read)) for image in islice(images, _MAX_CONFIGS))
    return [(image, platform) for image, platform in platforms if platform]


def _best(images: list[tuple[Descriptor, Platform]], wanted: Platform) -> Descriptor | None:
    """Of those that run on *wanted* the one that stands first in its order."""
    order = {platform: number for number, platform in enumerate(wanted.alternatives())}
    ranked = [
        (order[platform.normalized], number)
        for number, (_, platform) in enumerate(images)
        if platform.normalized in order
    ]
    return images[min(ranked)[1]][0] if ranked else None


def _nothing_for(index: Index, wanted: Platform, read: Read) -> str:
    """Why *wanted* has no image, in a line."""
    images = list(islice(image_manifests(index, read), _MAX_IMAGES))
    if not images:
        types = ", ".join(sorted({entry.media_type for entry in index.manifests})[:_MAX_SHOWN])
        return f"this index lists no image, but {types or 'nothing'}"
    labelled = [image.platform for image in images if image.platform]
    unlabelled = [image for image in images if not image.platform]
    platforms = [*labelled, *(platform for _, platform in _by_config(unlabelled, read))]
    names = sorted({str(platform) for platform in platforms})
    if more := names[_MAX_SHOWN:]:
        names[_MAX_SHOWN:] = [f"{len(more)} more"]
    return f"the image has no manifest for {wanted}; it has {', '.join(names) or 'none'}"
