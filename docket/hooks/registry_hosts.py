"""Folders of hosts.toml (``certs.d``), which Docker's containerd store and containerd read.

A folder ``<host[:port]>`` has the hosts to try for a registry, in order; ``_default`` has those of
all registries without a folder. A folder without hosts.toml may have certificates, which count only
as long as there is no hosts.toml.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from docket.errors import InvalidConfiguration
from docket.hooks.files import HostFiles
from docket.hooks.plan import AgentAddress, FileChange
from docket.hooks.toml_text import (
    NoSafeEdit,
    block,
    parse,
    table,
    table_at,
    value,
    with_hosts_first,
)

DEFAULT = "_default"
FILE = "hosts.toml"
DIAL_TIMEOUT = "1s"
"""How long an agent that is down may cost an engine; containerd's own default is 30 s."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """What is known of a registry apart from its folder: *mirrors* are URLs that go before it."""

    is_insecure: bool = False
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostFolders:
    """The folders below *roots*, the first of which counts, with the agent put into each."""

    files: HostFiles
    roots: Sequence[Path]
    agent: AgentAddress
    engine: str
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)

    def changes(self) -> Iterator[FileChange]:
        """A hosts.toml for all registries, and for each that has a folder or an upstream."""
        seen: set[Path] = set()
        for root in self.roots:
            for name in self.files.names(root):
                path = root / name
                if self.files.is_folder(path) and _registry(name) != self.agent.authority:
                    seen.add(path)
                    yield self._change(path)
        for registry in self.upstreams:
            if not self._folders_of(registry) & seen:
                path = self.roots[0] / registry
                seen.add(path)
                yield self._change(path)
        if not any(path.name == DEFAULT for path in seen):
            # the last root, so that it hides no folder of another one
            yield self._change(self.roots[-1] / DEFAULT)

    def _folders_of(self, registry: str) -> set[Path]:
        names = {registry, _folder_name(registry)}
        return {root / name for root in self.roots for name in names}

    def _change(self, folder: Path) -> FileChange:
        path = folder / FILE
        old = self.files.text(path)
        try:
            new = self._with_agent(folder, old or "")
        except NoSafeEdit as error:
            raise InvalidConfiguration(path, str(error)) from error
        registry = "every other registry" if folder.name == DEFAULT else _registry(folder.name)
        reason = f"{self.agent.authority} is asked before {registry}"
        return FileChange(path, new.encode(), reason)

    def _with_agent(self, folder: Path, old: str) -> str:
        values = parse(old)
        if self.agent.url in table_at(values, "host"):
            return old
        upstream = self.upstreams.get(_registry(folder.name), Upstream())
        root: dict[str, object] = {}
        mirrors = ""
        if "host" not in values:
            # until now the only host was the registry, to which Docker's own settings applied
            root = self._root_keys(folder, upstream, is_new=not values)
            mirrors = "".join(
                table(f"[host.{value(url)}]", {"capabilities": ["pull", "resolve"]})
                for url in upstream.mirrors
            )
        lines = "".join(f"{k} = {value(v)}\n" for k, v in root.items() if k not in values)
        addition = self._marked(f"{lines}{self._agent_table()}{mirrors}")
        return with_hosts_first(old, addition)

    def _root_keys(self, folder: Path, upstream: Upstream, *, is_new: bool) -> dict[str, object]:
        """What the registry itself needs once there is a hosts.toml."""
        keys: dict[str, object] = {}
        if upstream.is_insecure:
            # with skip_verify, containerd tries HTTPS first and falls back to HTTP
            keys = {"server": f"http://{_registry(folder.name)}", "skip_verify": True}
        return keys | (_certificates(self.files.names(folder)) if is_new else {})

    def _agent_table(self) -> str:
        rows = {"capabilities": ["pull", "resolve"], "dial_timeout": DIAL_TIMEOUT}
        return table(f"[host.{value(self.agent.url)}]", rows)

    def _marked(self, body: str) -> str:
        return block(f"docket agent setup {self.engine} --undo removes it", body)


def _certificates(names: Sequence[str]) -> dict[str, object]:
    """Docker's certificate files as keys of a hosts.toml."""
    keys: dict[str, object] = {}
    if authorities := [name for name in names if name.endswith(".crt")]:
        keys["ca"] = authorities
    pairs: list[object] = []
    for name in names:
        if name.endswith(".cert"):
            private = f"{name.removesuffix('.cert')}.key"
            # a certificate alone may hold its key too
            pairs.append([name, private] if private in names else name)
    if pairs:
        keys["client"] = pairs
    return keys


def _folder_name(registry: str) -> str:
    """``host_port_``, which comes before ``host:port``."""
    host, colon, port = registry.rpartition(":")
    return f"{host}_{port}_" if colon else registry


def _registry(folder: str) -> str:
    """The registry that a folder is for: ``host_port_`` is ``host:port``."""
    if folder.endswith("_") and folder.count("_") >= 2:
        host, _, port = folder[:-1].rpartition("_")
        if host and port.isdigit():
            return f"{host}:{port}"
    return folder
