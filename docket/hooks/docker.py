"""Docker: hosts.toml with the containerd image store, daemon.json with a graph driver."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docket.errors import InvalidConfiguration
from docket.hooks.files import HostFiles
from docket.hooks.plan import AgentAddress, FileChange, Paths, Plan, Registry
from docket.hooks.registry_hosts import HostFolders, Upstream

ENGINE = "docker"
_FIRST_WITH_HOSTS = 28
_HUB = "docker.io"
_INSECURE = "insecure-registries"
_MIRRORS = "registry-mirrors"


@dataclass(frozen=True, slots=True)
class DockerFacts:
    """What Docker says of itself; None where it couldn't be asked, or gave no answer."""

    version: str | None = None
    is_containerd_store: bool | None = None

    @property
    def major(self) -> int | None:
        """The first number of the version."""
        match = re.match(r"(\d{1,4})\.", self.version or "")
        return int(match[1]) if match else None


def plan_docker(
    files: HostFiles,
    paths: Paths,
    agent: AgentAddress,
    facts: DockerFacts,
    registry: Registry | None = None,
) -> Plan:
    """What makes Docker ask the agent first. Raises `InvalidConfiguration`.

    *registry* is the one that the agent belongs to; images may be named by it.
    """
    path = paths.docker / "daemon.json"
    settings = _settings(path, files.text(path))
    reads_hosts = _reads_hosts(facts, settings)
    changes: list[FileChange] = []
    notes: list[str] = []
    if reads_hosts is not False:
        upstreams = _upstreams(path, settings, registry)
        roots = [paths.docker / "certs.d"]
        changes += HostFolders(files, roots, agent, ENGINE, upstreams).changes()
        notes += _notes_on_networks(settings)
    if facts.is_containerd_store and reads_hosts is False:
        notes.append(
            f"Docker {facts.version} with the containerd store reads no hosts.toml and reaches no "
            f"registry over plain HTTP; docket pull loads images, Docker {_FIRST_WITH_HOSTS} pulls "
            "through the agent"
        )
    elif reads_hosts is not True:
        changes += _loopback_change(path, files.text(path), settings, agent)
        notes.append(
            f"Docker with a graph driver pulls through the agent only by the name prefix: "
            f"docker pull {agent.authority}/NAME:TAG"
        )
    if paths.is_user:
        notes.append(
            f"rootless Docker before 29 runs in a network namespace where {agent.authority} is not "
            "this host's: docs/agent.md says how to reach it"
        )
    if reads_hosts is None:
        notes.append(
            "Docker didn't report its image store: hosts.toml counts with the containerd "
            f"store of Docker {_FIRST_WITH_HOSTS} or newer alone; run setup again when Docker runs"
        )
    return Plan(ENGINE, tuple(changes), tuple(notes), _next_steps(path, changes, paths))


def _settings(path: Path, text: str | None) -> dict[str, Any]:
    try:
        settings = json.loads(text) if text and text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise InvalidConfiguration(path, f"it is not valid JSON: {error}") from error
    if not isinstance(settings, dict):
        raise InvalidConfiguration(path, "it is not a JSON object")
    return settings


def _reads_hosts(facts: DockerFacts, settings: Mapping[str, Any]) -> bool | None:
    """Whether this Docker reads hosts.toml; None if that can't be known."""
    if facts.is_containerd_store is False:
        return False
    if facts.major is not None and facts.major < _FIRST_WITH_HOSTS:
        return False
    if facts.is_containerd_store:
        return True if facts.major is not None else None
    features = settings.get("features")
    if isinstance(features, dict) and features.get("containerd-snapshotter") is False:
        return False
    return False if settings.get("userns-remap") else None


def _upstreams(
    path: Path, settings: Mapping[str, Any], registry: Registry | None
) -> dict[str, Upstream]:
    """Registries to which daemon.json's settings apply.

    Docker ignores both lists for a registry with more than one host.
    """
    upstreams = {
        _without_scheme(name): Upstream(is_insecure=True)
        for name in _texts(path, settings, _INSECURE)
        if not _is_network(name) and not _is_local(_without_scheme(name))
    }
    if mirrors := _texts(path, settings, _MIRRORS):
        upstreams[_HUB] = Upstream(mirrors=tuple(url.rstrip("/") for url in mirrors))
    if registry and not _is_local(registry.authority):
        upstreams.setdefault(registry.authority, Upstream(is_insecure=registry.is_plain_http))
    return upstreams


def _texts(path: Path, settings: Mapping[str, Any], name: str) -> list[str]:
    texts = settings.get(name) or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidConfiguration(path, f"{name} is not a list of strings")
    return texts


def _loopback_change(
    path: Path, text: str | None, settings: dict[str, Any], agent: AgentAddress
) -> list[FileChange]:
    """Plain HTTP to the agent: since 29.10 a list of insecure registries ends loopback's own."""
    listed = _texts(path, settings, _INSECURE)
    is_loopback = _is_network(agent.network)
    if is_loopback and _INSECURE not in settings:
        return []
    if any(_covers(entry, agent) for entry in listed):
        return []
    edited = {**settings, _INSECURE: [*listed, agent.network]}
    reason = f"Docker may reach {agent.authority} over plain HTTP"
    return [FileChange(path, _dumped(edited, text or "").encode(), reason)]


def _covers(entry: str, agent: AgentAddress) -> bool:
    if _without_scheme(entry) == agent.authority:
        return True
    try:
        return ipaddress.ip_address(agent.host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _dumped(settings: Mapping[str, Any], like: str) -> str:
    """JSON with the indent of *like*."""
    match = re.search(r"\n([ \t]+)\"", like)
    return json.dumps(settings, indent=match[1] if match else 2, ensure_ascii=False) + "\n"


def _notes_on_networks(settings: Mapping[str, Any]) -> list[str]:
    networks = [entry for entry in settings.get(_INSECURE, []) if _is_network(entry)]
    outside = [entry for entry in networks if not ipaddress.ip_network(entry, False).is_loopback]
    if not outside:
        return []
    note = (
        f"insecure-registries names {', '.join(outside)}: Docker now tries HTTPS alone for images "
        "of registries there that the agent doesn't have; name each by its host:port in "
        "insecure-registries and run setup again"
    )
    return [note]


def _next_steps(path: Path, changes: list[FileChange], paths: Paths) -> tuple[str, ...]:
    if any(change.path == path for change in changes):
        user = " --user" if paths.is_user else ""
        return (f"systemctl{user} reload docker",)
    return ()


def _without_scheme(name: str) -> str:
    return name.rpartition("://")[2].rstrip("/")


def _is_network(entry: str) -> bool:
    try:
        ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
    return "/" in entry


def _is_local(authority: str) -> bool:
    """Docker reaches registries on loopback over HTTP too, whatever is set."""
    is_bracketed = authority.startswith("[")
    host = authority[1:].partition("]")[0] if is_bracketed else authority.partition(":")[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
