"""containerd: folders of hosts.toml, and the setting of its CRI plugin that names them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from docket.errors import InvalidConfiguration
from docket.hooks.files import HostFiles
from docket.hooks.plan import AgentAddress, FileChange, Paths, Plan, Registry
from docket.hooks.registry_hosts import DEFAULT, HostFolders, Upstream
from docket.hooks.toml_text import NoSafeEdit, Table, parse, strings_at, table_at, with_value

ENGINE = "containerd"
_CONFIG_PATH = "config_path"
_CRI = "io.containerd.grpc.v1.cri"
_CRI_IMAGES = "io.containerd.cri.v1.images"
_NEWEST = 4
_PLUGINS = {"cri", _CRI, _CRI_IMAGES}


@dataclass(frozen=True, slots=True)
class _Config:
    """One of containerd's configuration files."""

    path: Path
    text: str
    values: Table

    @property
    def version(self) -> int:
        """The file's version; 1 where none is named."""
        number = self.values.get("version", 1)
        if not isinstance(number, int) or not 1 <= number <= _NEWEST:
            raise NoSafeEdit(f"version {number!r} is not known to docket")
        return number

    @property
    def table(self) -> tuple[str, ...]:
        """Where the registry settings of the CRI plugin are."""
        plugin = "cri" if self.version == 1 else _CRI if self.version == 2 else _CRI_IMAGES
        return ("plugins", plugin, "registry")

    @property
    def registry(self) -> Table:
        """The registry settings of the CRI plugin."""
        return table_at(self.values, *self.table)


@dataclass(frozen=True, slots=True)
class _Settings:
    """What a file says that counts here; *roots* are the folders that config_path names."""

    roots: list[Path]
    is_cri_disabled: bool


def plan_containerd(
    files: HostFiles,
    paths: Paths,
    agent: AgentAddress,
    version: str | None = None,
    registry: Registry | None = None,
) -> Plan:
    """What makes containerd ask the agent first. Raises `InvalidConfiguration`.

    *version* is containerd's own, such as ``2.1.9``; None if it couldn't be asked.
    """
    main, *imported = _configs(files, paths, version)
    settings = [_settings(config) for config in (main, *imported)]
    roots = next((setting.roots for setting in reversed(settings) if setting.roots), [])
    is_named = bool(roots)
    if not is_named:
        roots = _default_roots(files, paths)
    changes = [*HostFolders(files, roots, agent, ENGINE, _upstreams(registry)).changes()]
    notes = [f"ctr looks there only with ctr images pull --hosts-dir {roots[-1]}"]
    steps: tuple[str, ...] = ()
    if any(setting.is_cri_disabled for setting in settings):
        notes.append("containerd's CRI plugin is disabled; kubelet's pulls don't go through it")
    elif not is_named:
        changes.append(_config_change(main, roots))
        steps = (f"systemctl{' --user' if paths.is_user else ''} restart containerd",)
    return Plan(ENGINE, tuple(changes), tuple(notes), steps)


def _configs(files: HostFiles, paths: Paths, version: str | None) -> Iterator[_Config]:
    """The main file, as it would be made if it isn't there, and what it imports."""
    path = paths.containerd / "config.toml"
    text = files.text(path)
    main = _parsed(path, text if text and text.strip() else _new_text(version))
    yield main
    with _named(path):
        patterns = [path.parent / pattern for pattern in strings_at(main.values, "imports")]
    for pattern in patterns:
        for name in files.names(pattern.parent):
            imported = pattern.parent / name
            if fnmatch(name, pattern.name) and imported != path:
                yield _parsed(imported, files.text(imported) or "")


def _new_text(version: str | None) -> str:
    major = (version or "").partition(".")[0]
    # containerd 2 reads version 2 too
    return "version = 3\n" if major.isdigit() and int(major) >= 2 else "version = 2\n"


def _parsed(path: Path, text: str) -> _Config:
    with _named(path):
        return _Config(path, text, parse(text))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors say which file they are about."""
    try:
        yield
    except NoSafeEdit as error:
        raise InvalidConfiguration(path, str(error)) from error


def _settings(config: _Config) -> _Settings:
    with _named(config.path):
        registry = config.registry
        _refuse_old_form(registry)
        named = registry.get(_CONFIG_PATH) or ""
        if not isinstance(named, str):
            raise NoSafeEdit(f"{_CONFIG_PATH} is not a string")
        roots = [Path(part) for part in named.split(":") if part]
        if any(not root.is_absolute() for root in roots):
            raise NoSafeEdit(f"{_CONFIG_PATH} is not an absolute path")
        disabled = strings_at(config.values, "disabled_plugins")
    return _Settings(roots, is_cri_disabled=not _PLUGINS.isdisjoint(disabled))


def _refuse_old_form(registry: Table) -> None:
    """Refuse settings that containerd doesn't take beside `config_path`."""
    configs = table_at(registry, "configs")
    with_tls = [name for name in configs if table_at(configs, name).get("tls")]
    if registry.get("mirrors") or with_tls:
        old = "mirrors" if registry.get("mirrors") else f"configs of {', '.join(with_tls)} with tls"
        raise NoSafeEdit(
            f"the CRI plugin's registry has {old}, which containerd refuses beside config_path; "
            "write them as certs.d/<registry>/hosts.toml first"
        )


def _default_roots(files: HostFiles, paths: Paths) -> list[Path]:
    """containerd's own folder; Docker's too, which newer versions read, where it has registries."""
    own, docker = paths.containerd / "certs.d", paths.docker / "certs.d"
    has_registries = any(name != DEFAULT for name in files.names(docker))
    return [own, docker] if has_registries else [own]


def _upstreams(registry: Registry | None) -> dict[str, Upstream]:
    if registry is None:
        return {}
    return {registry.authority: Upstream(is_insecure=registry.is_plain_http)}


def _config_change(config: _Config, roots: list[Path]) -> FileChange:
    joined = ":".join(map(str, roots))
    reason = "set by docket agent setup"
    with _named(config.path):
        edited = with_value(config.text, config.table, _CONFIG_PATH, joined, reason=reason)
    return FileChange(config.path, edited.encode(), f"the CRI plugin reads {joined}")
