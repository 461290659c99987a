"""Errors of the store on disk, and of uploads into it."""

from __future__ import annotations

from docket.errors.base import DocketError


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
        self.why = why
        super().__init__(f"the store at {location} can't be used: {why}")


class IndexDamaged(StoreError):
    """A row of the index fails its checksum."""

    def __init__(self, table: str, key: bytes) -> None:
        self.table = table
        self.key = key
        super().__init__(
            f"the index is damaged at {table} {key.decode(errors='replace')!r}; run docket fsck"
        )


class SharingRefused(StoreError):
    """Another program's file can't be linked into the store."""

    def __init__(self, path: object, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"{path} can't be shared with the store: {why}")


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
