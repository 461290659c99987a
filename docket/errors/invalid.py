"""Errors of what came in: names, addresses, manifests, archives, messages."""

from __future__ import annotations

from docket.errors.base import DocketError


class InvalidInput(DocketError):
    """What came in is wrong; sending the same again won't help."""


class InvalidDigest(InvalidInput):
    """A text that is not a digest (OCI image 1.1, descriptor § digests)."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f"{text[:160]!r} is not a digest such as sha256:<64 hex digits>")


class InvalidReference(InvalidInput):
    """A text that names no repository, tag or digest."""

    def __init__(self, text: str, why: str) -> None:
        self.text = text
        super().__init__(f"{text[:300]!r} is not an image name: {why}")


class InvalidOption(InvalidInput):
    """A value that an option doesn't take."""

    def __init__(self, text: str, why: str) -> None:
        self.text = text
        super().__init__(f"{text[:300]!r} is not a valid value: {why}")


class InvalidAddress(InvalidInput):
    """A text that is not the address of a registry, host or tracker."""

    def __init__(self, text: str, why: str) -> None:
        self.text = text
        super().__init__(f"{text[:300]!r} is not a valid address: {why}")


class InvalidRequest(InvalidInput):
    """An HTTP request that docket's own API doesn't take."""


class WrongMediaType(InvalidRequest):
    """A body of another media type than the call takes."""

    def __init__(self, media_type: str) -> None:
        self.media_type = media_type
        shown = media_type[:100] or "none"
        super().__init__(f"this call takes Content-Type: application/json, not {shown}")


class InvalidManifest(InvalidInput):
    """Bytes that are not a manifest, index or image configuration."""


class InvalidArchive(InvalidInput):
    """An image archive that can't be read, or that breaks its own promises."""


class WindowTooLarge(InvalidArchive):
    """A zstd frame needs more memory than it may have."""


class InvalidMetainfo(InvalidInput):
    """A torrent file that is not one of docket's."""


class InvalidAnnounce(InvalidInput):
    """A tracker request that doesn't follow BEP 3."""


class InvalidConfiguration(InvalidInput):
    """An engine's configuration file that docket can't read or change safely."""

    def __init__(self, path: object, why: str) -> None:
        self.path = path
        super().__init__(f"{path} can't be changed: {why}; nothing was written")


class DigestMismatch(InvalidInput):
    """The bytes hash to another digest than the one they were promised under."""

    def __init__(self, expected: object, actual: object) -> None:
        self.expected = expected
        self.actual = actual
        super().__init__(f"expected {expected}, but the bytes are {actual}")


class SizeMismatch(InvalidInput):
    """There are more or fewer bytes than promised."""

    def __init__(self, what: object, *, expected: int, actual: int) -> None:
        self.expected = expected
        self.actual = actual
        super().__init__(f"{what} should have {expected} bytes but has {actual}")


class TooLarge(InvalidInput):
    """More bytes than docket takes for this."""

    def __init__(self, what: str, *, limit: int) -> None:
        self.limit = limit
        super().__init__(f"{what} is larger than the limit of {limit} bytes")


class TooCostly(InvalidInput):
    """Unpacking takes more processor time than docket gives to bytes of this number."""

    def __init__(self, *, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(
            f"unpacking this takes more than {seconds} s of processor time: "
            "a few bytes that become a great many are refused"
        )
