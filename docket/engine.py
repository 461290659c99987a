"""The container engine behind its socket: Docker, either image store, and podman."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound
from docker.utils import kwargs_from_env

from docket.errors import EngineError, EngineImageUnknown, EngineUnreachable, InvalidDigest
from docket.oci.digest import READ_SIZE, Digest

# an engine says nothing while it unpacks a large layer
_TIMEOUT_SECONDS = 3600
_ANSWER_SECONDS = 60
_UNIX = "unix://"
_NAMED = ("Loaded image: ", "Loaded image ID: ")
_CONTAINERD_STORE = "io.containerd.snapshotter.v1"

# the SDK reads some answers through requests, some through urllib3
_LOST = (DockerException, requests.RequestException, urllib3.exceptions.HTTPError)

Loaded = Callable[[], Mapping[Digest, Sequence[Digest]]]
"""Images that docket loaded: the engine's ids for them, with the diff_ids of their layers."""


@dataclass(frozen=True, slots=True)
class EngineImage:
    """An image in the engine; *config* is None where the engine's id is not the config's digest."""

    id: str
    config: Digest | None
    diff_ids: tuple[Digest, ...]


class Engine:
    """One container engine."""

    def __init__(self, client: Any, host: str) -> None:
        self._client = client
        self.host = host
        with self._translated():
            status = client.info().get("DriverStatus") or []
        self.is_containerd_store = any(_CONTAINERD_STORE in row for row in status)

    @classmethod
    def connect(cls, host: str | None = None) -> Engine:
        """The engine at *host*, at ``DOCKER_HOST``, or at the usual sockets of Docker and podman.

        ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH`` count as for the docker command. Raises
        `EngineUnreachable`.
        """
        url = host or os.environ.get("DOCKER_HOST") or _usual_socket()
        # the SDK would say so in three lines, and leave its socket open
        if refusal := _refusal(url):
            raise EngineUnreachable(url, refusal.strerror or str(refusal)) from refusal
        try:
            tls = kwargs_from_env().get("tls", False)
            client = docker.APIClient(
                base_url=url, tls=tls, version="auto", timeout=_ANSWER_SECONDS
            )
        except (DockerException, requests.RequestException, ValueError) as error:
            raise EngineUnreachable(url, _reason(error)) from error
        try:
            engine = cls(client, url)
        except BaseException:
            client.close()
            raise
        client.timeout = _TIMEOUT_SECONDS
        return engine

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def image(self, name: str) -> EngineImage:
        """The image *name*. Raises `EngineImageUnknown`."""
        found = self._inspect(name)
        if found is None:
            raise EngineImageUnknown(name)
        image_id = str(found["Id"])
        config = None if self.is_containerd_store else _digest(image_id)
        return EngineImage(image_id, config, _diff_ids(found))

    @contextmanager
    def save(self, name: str) -> Iterator[BinaryIO]:
        """A stream of the image's archive, as ``docker save`` writes it."""
        with self._translated(name):
            blocks = self._client.get_image(name, chunk_size=READ_SIZE)
        try:
            yield cast(BinaryIO, io.BufferedReader(_BlockReader(self, name, blocks), READ_SIZE))
        finally:
            blocks.close()

    def held_prefix(self, diff_ids: Sequence[Digest], loaded: Loaded = dict) -> int:
        """How many of the first *diff_ids* an archive for this engine may leave out.

        Engines with layer chains take what any of their images begins with. In the containerd
        image store a layer may be there in another form, and a wrong guess leaves a broken image;
        so there only images count that docket *loaded* and that the engine has whole.
        """
        known = loaded() if self.is_containerd_store else None
        best = 0
        for image_id in self._image_ids():
            digest = _digest(image_id)
            promised = None if known is None or digest is None else known.get(digest)
            if known is not None and promised is None:
                continue
            # an image that went away meanwhile holds nothing
            found = self._inspect(image_id)
            theirs = _diff_ids(found) if found else ()
            # the containerd store shows no layers of an image that lacks one
            if promised is None or tuple(promised) == theirs:
                best = max(best, _common(diff_ids, theirs))
            if best == len(diff_ids):
                break
        return best

    def load(self, blocks: Iterator[bytes]) -> None:
        """Load an archive as it comes. Returning means that the engine has the image, whole.

        What *blocks* raises goes through; raises `EngineError` with the engine's own words.
        """
        source = _Watched(blocks)
        named: list[str] = []
        try:
            with self._translated():
                for row in self._client.load_image(iter(source)):
                    if message := _complaint(row):
                        raise EngineError(f"the engine at {self.host} refuses the image: {message}")
                    named += _named(row)
        except Exception:
            if source.error:
                raise source.error from None
            raise
        if self.is_containerd_store:
            for name in named:
                self._check_whole(name)

    def _check_whole(self, name: str) -> None:
        """The containerd store may keep a broken image and say nothing; it shows no platform."""
        found = self._inspect(name)
        if not found or not (found.get("Architecture") or _diff_ids(found)):
            raise EngineError(f"the engine at {self.host} has {name}, but lacks some of its layers")

    def _image_ids(self) -> list[str]:
        with self._translated():
            rows = self._client.images()
        return [str(row["Id"]) for row in rows]

    def _inspect(self, name: str) -> dict[str, Any] | None:
        with self._translated(), suppress(ImageNotFound):
            found: dict[str, Any] = self._client.inspect_image(name)
            return found
        return None

    @contextmanager
    def _translated(self, name: str = "") -> Iterator[None]:
        """Turns the SDK's errors into docket's."""
        try:
            yield
        except ImageNotFound as error:
            raise EngineImageUnknown(name) from error
        except APIError as error:
            raise EngineError(f"the engine at {self.host} refuses: {_reason(error)}") from error
        except _LOST as error:
            raise EngineUnreachable(self.host, _reason(error)) from error


class _BlockReader(io.RawIOBase):
    """Blocks of an answer as a stream."""

    def __init__(self, engine: Engine, name: str, blocks: Iterator[bytes]) -> None:
        self._engine = engine
        self._name = name
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        with self._engine._translated(self._name):
            while not self._rest and (block := next(self._blocks, None)) is not None:
                self._rest = memoryview(block)
        count = min(len(self._rest), len(target))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class _Watched:
    """Blocks, and the error that ended them: the HTTP library would wrap it in its own."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._blocks
        except Exception as error:
            self.error = error
            raise


def _complaint(row: dict[str, Any]) -> str:
    """What a line of the engine's answer to a load complains of, or nothing."""
    # the SDK doesn't look at the status of a chunked answer, whose JSON has a "message"
    if message := row.get("error") or row.get("message"):
        return str(message)
    # Docker 28's containerd store says so in passing, and keeps the broken image
    said = str(row.get("stream", ""))
    return " ".join(said.split()) if said.startswith("Error ") else ""


def _named(row: dict[str, Any]) -> list[str]:
    """The names or ids of images that a line of the engine's answer says are loaded."""
    lines = str(row.get("stream", "")).splitlines()
    return [one.removeprefix(say) for one in lines for say in _NAMED if one.startswith(say)]


def _refusal(url: str) -> OSError | None:
    """Why nothing can be sent to the socket file at *url*; None for other hosts."""
    if not url.startswith(_UNIX):
        return None
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(url.removeprefix(_UNIX))
        except OSError as error:
            return error
    return None


def _usual_socket() -> str:
    """The first that answers, else the first that is there: a user may use only podman's."""
    places = ["/var/run/docker.sock", "/run/podman/podman.sock"]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        places.insert(1, f"{runtime}/podman/podman.sock")
    refusals = {f"{_UNIX}{place}": _refusal(f"{_UNIX}{place}") for place in places}
    there = [url for url, error in refusals.items() if not isinstance(error, FileNotFoundError)]
    answering = [url for url, error in refusals.items() if error is None]
    return next(iter((*answering, *there, *refusals)))


def _diff_ids(found: dict[str, Any]) -> tuple[Digest, ...]:
    layers = (found.get("RootFS") or {}).get("Layers") or []
    return tuple(Digest.parse(text) for text in layers)


def _digest(image_id: str) -> Digest | None:
    text = image_id if ":" in image_id else f"sha256:{image_id}"
    with suppress(InvalidDigest):
        return Digest.parse(text)
    return None


def _common(ours: Sequence[Digest], theirs: Sequence[Digest]) -> int:
    """How many layers both begin with."""
    count = 0
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            break
        count += 1
    return count


def _reason(error: Exception) -> str:
    if explanation := getattr(error, "explanation", None):
        return " ".join(str(explanation).split())
    # what the system said is below three layers of HTTP
    cause: BaseException | None = error
    while isinstance(cause, _LOST):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return " ".join(str(error).split())
