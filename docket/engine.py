"""The container engine behind its socket: Docker, either image store, and podman."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env

from docket.engine_address import UNIX, EngineAddress, engine_address, socket_refusal
from docket.errors import EngineError, EngineImageUnknown, EngineUnreachable, InvalidDigest
from docket.oci.digest import READ_SIZE, Digest

# an engine sends nothing while it unpacks a large layer
_TIMEOUT_SECONDS = 3600
_ANSWER_SECONDS = 60
_LOADED = ("Loaded image: ", "Loaded image ID: ")
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
            info = client.info()
        status = info.get("DriverStatus") or []
        self.version = str(info.get("ServerVersion") or "")
        self.is_podman = "BuildahVersion" in info
        self.is_containerd_store = any(_CONTAINERD_STORE in row for row in status)

    @classmethod
    def connect(cls, host: str | None = None, variables: Mapping[str, str] = os.environ) -> Engine:
        """The engine at *host*, or where `engine_address` finds one by the environment *variables*.

        With ``DOCKER_HOST``, ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH`` count as for the docker
        command. Raises `EngineUnreachable`.
        """
        address = (
            EngineAddress(host, is_from_host_variable=True) if host else engine_address(variables)
        )
        url = address.url
        # the SDK would say so in three lines, and leave its socket open
        path = url.removeprefix(UNIX)
        if path != url and (refusal := socket_refusal(path)):
            raise EngineUnreachable(url, refusal.strerror or str(refusal)) from refusal
        try:
            client = docker.APIClient(
                base_url=url, tls=_tls(address, variables), version="auto", timeout=_ANSWER_SECONDS
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
        """The image *name*. Raises `EngineImageUnknown` with names that differ in the registry."""
        attributes = self._inspect(name)
        if attributes is None:
            raise EngineImageUnknown(name, self._names_elsewhere(name))
        image_id = str(attributes["Id"])
        config = None if self.is_containerd_store else _digest(image_id)
        return EngineImage(image_id, config, _diff_ids(attributes))

    def _names_elsewhere(self, name: str) -> list[str]:
        """The engine's names for images that are called *name* behind a registry's address."""
        with self._translated():
            rows = self._client.images()
        names = [str(tag) for row in rows for tag in row.get("RepoTags") or []]
        return sorted(tag for tag in names if _registry_of(tag, name))

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
        loaded_images = loaded() if self.is_containerd_store else None
        best = 0
        for image_id in self._image_ids():
            digest = _digest(image_id)
            promised = (
                None if loaded_images is None or digest is None else loaded_images.get(digest)
            )
            if loaded_images is not None and promised is None:
                continue
            # an image that went away meanwhile holds nothing
            attributes = self._inspect(image_id)
            theirs = _diff_ids(attributes) if attributes else ()
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
        attributes = self._inspect(name)
        if not attributes or not (attributes.get("Architecture") or _diff_ids(attributes)):
            raise EngineError(f"the engine at {self.host} has {name}, but lacks some of its layers")

    def _image_ids(self) -> list[str]:
        with self._translated():
            rows = self._client.images()
        return [str(row["Id"]) for row in rows]

    def _inspect(self, name: str) -> dict[str, Any] | None:
        with self._translated(), suppress(ImageNotFound):
            attributes: dict[str, Any] = self._client.inspect_image(name)
            return attributes
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
    text = str(row.get("stream", ""))
    return " ".join(text.split()) if text.startswith("Error ") else ""


def _named(row: dict[str, Any]) -> list[str]:
    """The names or ids of images that a line of the engine's answer says are loaded."""
    lines = str(row.get("stream", "")).splitlines()
    return [
        line.removeprefix(words) for line in lines for words in _LOADED if line.startswith(words)
    ]


def _tls(address: EngineAddress, variables: Mapping[str, str]) -> Any:
    """What the SDK takes for TLS; False for none."""
    if address.is_from_host_variable:
        return kwargs_from_env(environment=variables).get("tls", False)
    if not address.tls:
        return False
    pair = (address.tls.certificate, address.tls.key)
    return TLSConfig(
        client_cert=(str(pair[0]), str(pair[1])) if pair[0] and pair[1] else None,
        ca_cert=str(address.tls.ca) if address.tls.ca else None,
        verify=address.tls.verify,
    )


def _registry_of(tag: str, name: str) -> str:
    """The registry in *tag*, if *tag* is *name* behind a registry's address; else nothing."""
    registry, slash, repository = tag.partition("/")
    is_registry = "." in registry or ":" in registry or registry == "localhost"
    return registry if slash and repository == name and is_registry else ""


def _diff_ids(attributes: dict[str, Any]) -> tuple[Digest, ...]:
    layers = (attributes.get("RootFS") or {}).get("Layers") or []
    return tuple(Digest.parse(text) for text in layers)


def _digest(image_id: str) -> Digest | None:
    text = image_id if ":" in image_id else f"sha256:{image_id}"
    with suppress(InvalidDigest):
        return Digest.parse(text)
    return None


def _common(ours: Sequence[Digest], theirs: Sequence[Digest]) -> int:
    """How many layers both begin with."""
    count = 0
    for our_layer, their_layer in zip(ours, theirs, strict=False):
        if our_layer != their_layer:
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
