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
    │   ├── SharingRefused      another program's file can't be linked
    │   └── StoreFull           no space left
    ├── RegistryError
    │   ├── RegistryUnreachable
    │   ├── RegistryRefused     the registry answered with an error
    │   └── UpstreamError       another registry, whose images are fetched, sent nothing usable
    │       ├── UpstreamUnavailable
    │       ├── UpstreamDenied      it wants other credentials
    │       ├── UpstreamLimited     it limits the rate of requests
    │       └── UpstreamFetching    the image is on its way: ask again
    ├── EngineError
    │   ├── EngineUnreachable
    │   └── EngineImageUnknown
    ├── LayerFailed             an engine reads it while it arrives, and it does not come
    ├── Stopped                 ended before it was done
    ├── SwarmError              the BitTorrent session failed
    └── OutputError             standard output can't be written to

Messages say what happened, to what, and what to do next; data is in attributes.
"""

from docket.errors.base import DocketError, Stopped
from docket.errors.invalid import (
    DigestMismatch,
    InvalidAddress,
    InvalidAnnounce,
    InvalidArchive,
    InvalidConfiguration,
    InvalidDigest,
    InvalidInput,
    InvalidManifest,
    InvalidMetainfo,
    InvalidOption,
    InvalidReference,
    InvalidRequest,
    SizeMismatch,
    TooCostly,
    TooLarge,
    WindowTooLarge,
    WrongMediaType,
)
from docket.errors.missing import (
    BlobDamaged,
    BlobUnknown,
    DeployUnknown,
    HostUnknown,
    ImageNotInArchive,
    LayerElsewhere,
    ManifestBlobUnknown,
    ManifestUnknown,
    NotFound,
    RepositoryUnknown,
    UploadUnknown,
)
from docket.errors.services import (
    EngineError,
    EngineImageUnknown,
    EngineUnreachable,
    LayerFailed,
    OutputError,
    RegistryError,
    RegistryRefused,
    RegistryUnreachable,
    SwarmError,
)
from docket.errors.storage import (
    IndexDamaged,
    IndexUnreadable,
    NoHome,
    SharingRefused,
    StoreError,
    StoreFormat,
    StoreFull,
    StoreLocked,
    StoreUnusable,
    UploadConflict,
    UploadOutOfOrder,
    UploadStopped,
)
from docket.errors.text import MAX_SUMMARY, printable, summary
from docket.errors.upstream import (
    UpstreamDenied,
    UpstreamError,
    UpstreamFetching,
    UpstreamLimited,
    UpstreamUnavailable,
)

__all__ = [
    "MAX_SUMMARY",
    "BlobDamaged",
    "BlobUnknown",
    "DeployUnknown",
    "DigestMismatch",
    "DocketError",
    "EngineError",
    "EngineImageUnknown",
    "EngineUnreachable",
    "HostUnknown",
    "ImageNotInArchive",
    "IndexDamaged",
    "IndexUnreadable",
    "InvalidAddress",
    "InvalidAnnounce",
    "InvalidArchive",
    "InvalidConfiguration",
    "InvalidDigest",
    "InvalidInput",
    "InvalidManifest",
    "InvalidMetainfo",
    "InvalidOption",
    "InvalidReference",
    "InvalidRequest",
    "LayerElsewhere",
    "LayerFailed",
    "ManifestBlobUnknown",
    "ManifestUnknown",
    "NoHome",
    "NotFound",
    "OutputError",
    "RegistryError",
    "RegistryRefused",
    "RegistryUnreachable",
    "RepositoryUnknown",
    "SharingRefused",
    "SizeMismatch",
    "Stopped",
    "StoreError",
    "StoreFormat",
    "StoreFull",
    "StoreLocked",
    "StoreUnusable",
    "SwarmError",
    "TooCostly",
    "TooLarge",
    "UploadConflict",
    "UploadOutOfOrder",
    "UploadStopped",
    "UploadUnknown",
    "UpstreamDenied",
    "UpstreamError",
    "UpstreamFetching",
    "UpstreamLimited",
    "UpstreamUnavailable",
    "WindowTooLarge",
    "WrongMediaType",
    "printable",
    "summary",
]
