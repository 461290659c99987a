"""Every error that docket raises on purpose, in one tree.

    DocketError
    ├── InvalidInput            what came in is wrong; sending it again won't help
    │   ├── InvalidDigest
    │   ├── InvalidReference
    │   ├── InvalidOption       a value of a command's option
    │   ├── InvalidAddress      where a registry, host or tracker can't be
    │   ├── InvalidRequest      an HTTP request that docket's API doesn't take
    │   │   └── WrongMediaType
    │   ├── InvalidManifest
    │   ├── InvalidArchive
    │   │   └── WindowTooLarge  zstd that needs more memory than it may have
    │   ├── InvalidMetainfo
    │   ├── InvalidAnnounce
    │   ├── InvalidConfiguration
    │   ├── DigestMismatch
    │   ├── SizeMismatch
    │   ├── TooLarge
    │   └── TooCostly           unpacking takes too much processor time
    ├── NotFound
    │   ├── BlobUnknown
    │   │   └── BlobDamaged     its file has rotted, and is in quarantine
    │   ├── ManifestUnknown
    │   ├── ManifestBlobUnknown
    │   ├── LayerElsewhere      a foreign layer that the registry doesn't have
    │   ├── RepositoryUnknown
    │   ├── UploadUnknown
    │   ├── DeployUnknown
    │   ├── HostUnknown
    │   └── ImageNotInArchive
    ├── UploadConflict          two writers at one upload session
    ├── UploadStopped           the command that uploads was interrupted
    ├── UploadOutOfOrder        a part that doesn't begin where the last one ended
    ├── StoreError
    │   ├── StoreLocked         another process owns the store
    │   ├── StoreFormat         the store is not one this version reads
    │   │   └── IndexUnreadable the index is damaged, and has to be rebuilt
    │   ├── IndexDamaged        a row of the index fails its checksum
    │   ├── StoreUnusable       its disk can't be written, read or linked on
    │   ├── NoHome              no folder is known for the store
    │   └── StoreFull           no space left
    ├── RegistryError
    │   ├── RegistryUnreachable
    │   └── RegistryRefused     the registry answered with an error
    ├── EngineError
    │   ├── EngineUnreachable
    │   └── EngineImageUnknown
    ├── LayerFailed             an engine reads it while it arrives, and it does not come
    ├── Stopped                 ended before it was done
    ├── SwarmError              the BitTorrent session failed
    └── OutputError             standard output can't be written to

Messages say what happened, to what, and what to do next; data is in attributes.
"""

from __future__ import annotations

from collections.abc import Sequence

from docket.error_text import MAX_SUMMARY as MAX_SUMMARY
from docket.error_text import printable as printable
from docket.error_text import summary as summary


class DocketError(Exception):
    """The base of all errors that docket raises on purpose."""


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


class NotFound(DocketError):
    """No such thing is here."""


class BlobUnknown(NotFound):
    """No such blob in this repository."""

    def __init__(self, digest: object) -> None:
        self.digest = digest
        super().__init__(f"blob {digest} is not here")


class BlobDamaged(BlobUnknown):
    """The blob's file has rotted: it is in quarantine until a push brings it again."""

    def __init__(self, digest: object) -> None:
        super().__init__(digest)
        text = (
            f"blob {digest} was damaged and is in quarantine; push its image again, and run "
            "docket fsck --read-data to find what else is"
        )
        self.args = (text,)


class ManifestUnknown(NotFound):
    """No such manifest or tag in this repository."""

    def __init__(self, reference: object) -> None:
        self.reference = reference
        super().__init__(f"image {reference} is not here")


class ManifestBlobUnknown(NotFound):
    """A manifest names a blob or manifest that this repository doesn't have."""

    def __init__(self, digest: object) -> None:
        self.digest = digest
        super().__init__(
            f"the manifest names {digest}, which is not in this repository; push it first"
        )


class LayerElsewhere(NotFound):
    """A layer that the registry doesn't have, since it may not be redistributed."""

    def __init__(self, reference: object, digest: object, urls: Sequence[str]) -> None:
        self.digest = digest
        self.urls = urls
        place = f" but at {urls[0][:200]}" if urls else ""
        super().__init__(
            f"layer {digest} of {reference} is not in the registry{place}; docket fetches no "
            "layers from other servers: push it there, or load the base image into the engine first"
        )


class RepositoryUnknown(NotFound):
    """No such repository."""

    def __init__(self, repository: str) -> None:
        self.repository = repository
        super().__init__(f"repository {repository} is not here")


class UploadUnknown(NotFound):
    """No such upload session in this repository."""

    def __init__(self, upload: object) -> None:
        super().__init__(f"upload {upload} is not open; begin again")


class DeployUnknown(NotFound):
    """The registry knows no deploy with this id; old ones are forgotten."""

    def __init__(self, deploy_id: str) -> None:
        self.deploy_id = deploy_id
        super().__init__(f"deploy {deploy_id[:40]!r} is not known; docket deploys lists them")


class HostUnknown(NotFound):
    """The registry knows no connected agent with this id: it has to connect first."""

    def __init__(self, host_id: str) -> None:
        self.host_id = host_id
        super().__init__(f"agent {host_id[:8]!r} is not connected to this registry")


class ImageNotInArchive(NotFound):
    """The archive holds other images than the requested one."""

    def __init__(self, name: str, names: list[str]) -> None:
        self.names = names
        super().__init__(
            f"{name} is not in the archive; it holds {', '.join(names)}; choose one with --image"
        )


class Stopped(DocketError):
    """Something that takes long was ended before it was done, because the process stops."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was stopped before its end; start it again")


class UploadConflict(DocketError):
    """Another request is writing to the same upload session."""

    def __init__(self, upload: object) -> None:
        super().__init__(f"upload {upload} is being written by another request")


class UploadStopped(DocketError):
    """The command that uploads was interrupted."""

    def __init__(self, what: object) -> None:
        super().__init__(f"the upload of {what} was stopped")


class UploadOutOfOrder(DocketError):
    """A part of an upload doesn't begin where the last one ended."""

    def __init__(self, upload: object, *, offset: int) -> None:
        self.offset = offset
        super().__init__(f"upload {upload} goes on at byte {offset}")


class StoreError(DocketError):
    """The store on disk can't do what was asked."""


class StoreLocked(StoreError):
    """Another process owns the store."""

    def __init__(self, location: object, holder: str) -> None:
        self.location = location
        self.holder = holder
        super().__init__(
            f"the store at {location} is in use by {holder}; "
            "wait for it or choose another place with -l"
        )


class StoreFormat(StoreError):
    """The folder is no store, or one of another version."""


class NoHome(StoreError):
    """No home folder is known, so there is no default location for the store."""

    def __init__(self, user_id: int) -> None:
        self.user_id = user_id
        super().__init__(
            f"user id {user_id} has no home folder; set HOME or give the store's location with -l"
        )


class IndexUnreadable(StoreFormat):
    """The index is damaged; blobs and journal are what it is rebuilt from."""

    def __init__(self, location: object, why: str) -> None:
        self.location = location
        super().__init__(
            f"the index of the store at {location} is damaged ({why}); nothing was changed; stop "
            f"what uses it and run docket fsck --local --rebuild-index -l {location}"
        )


class StoreUnusable(StoreError):
    """The disk of the store fails, is read-only, or is more than one."""

    def __init__(self, location: object, why: str) -> None:
        self.location = location
        super().__init__(f"the store at {location} can't be used: {why}")


class IndexDamaged(StoreError):
    """A row of the index fails its checksum."""

    def __init__(self, table: str, key: bytes) -> None:
        self.table = table
        self.key = key
        super().__init__(
            f"the index is damaged at {table} {key.decode(errors='replace')!r}; run docket fsck"
        )


class StoreFull(StoreError):
    """The disk that holds the store is full."""

    def __init__(self, location: object, *, needed: int = 0, free: int = 0) -> None:
        self.location = location
        self.needed = needed
        self.free = free
        short = f" for {needed} bytes more, it has {free}" if needed else ""
        super().__init__(
            f"no space left on the disk of {location}{short}; "
            "free some, e.g. by docket rm and docket gc"
        )


class RegistryError(DocketError):
    """Talking to a registry failed."""


class RegistryUnreachable(RegistryError):
    """Nothing answers at the registry's address."""

    def __init__(self, url: str, why: str) -> None:
        self.url = url
        super().__init__(
            f"no registry answers at {url} ({why}); check -h and -p, or start docket registry"
        )


class RegistryRefused(RegistryError):
    """The registry answered with an error (OCI distribution 1.1 § error codes)."""

    def __init__(self, what: str, *, status: int, code: str = "", message: str = "") -> None:
        self.status = status
        self.code = code
        said = ": ".join(part for part in (code, message) if part) or "no reason given"
        super().__init__(f"the registry refused {what} with {status} ({said})")


class EngineError(DocketError):
    """The container engine failed or refused."""


class EngineUnreachable(EngineError):
    """No container engine answers at its socket."""

    def __init__(self, host: str, why: str) -> None:
        self.host = host
        super().__init__(
            f"no container engine answers at {host} ({why}); start it or set DOCKER_HOST, "
            "or use --archive / --output / --layers-only"
        )


class EngineImageUnknown(EngineError):
    """The container engine has no such image."""

    def __init__(self, name: str, names_elsewhere: Sequence[str] = ()) -> None:
        self.name = name
        self.names_elsewhere = names_elsewhere
        hint = "see docker images"
        if names_elsewhere:
            hint = f"to push {names_elsewhere[0]}, run: docker tag {names_elsewhere[0]} {name}"
        super().__init__(f"the container engine has no image {name}; {hint}")


class SwarmError(DocketError):
    """The BitTorrent session failed."""


class OutputError(DocketError):
    """The result can't be written to standard output; what it reports is done."""

    def __init__(self, why: str) -> None:
        super().__init__(f"can't write the result to standard output: {why}")


class LayerFailed(DocketError):
    """A layer was on its way to this host, and does not come."""

    def __init__(self, digest: object, error: Exception) -> None:
        self.digest = digest
        super().__init__(f"layer {digest} could not be fetched: {error}")
