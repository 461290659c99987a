"""podman, buildah, skopeo and CRI-O: a drop-in of registries.conf with the agent as a mirror.

There is no setting for all registries: each has a block. A block replaces one of the same prefix in
an earlier file, so blocks that are there already are repeated with the agent put first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from docket.errors import InvalidConfiguration
from docket.hooks.files import HostFiles
from docket.hooks.plan import AgentAddress, FileChange, Paths, Plan, Registry
from docket.hooks.toml_text import NoSafeEdit, Table, block, parse, table, tables_at

ENGINE = "podman"
FILE = "zz-docket.conf"
"""The last of all drop-ins by name."""

REGISTRIES = (
    "docker.io",
    "ghcr.io",
    "quay.io",
    "gcr.io",
    "registry.k8s.io",
    "public.ecr.aws",
    "mcr.microsoft.com",
)
"""Registries that go through the agent where the operator names none."""

_MIRROR = "mirror"
_SYSTEM = Path("/etc/containers")


def plan_podman(
    files: HostFiles,
    paths: Paths,
    agent: AgentAddress,
    registries: Sequence[str] = REGISTRIES,
    registry: Registry | None = None,
) -> Plan:
    """What makes podman and CRI-O ask the agent first for images of *registries*.

    Images of *registry*, to which the agent belongs, are requested by their own names. Raises
    `InvalidConfiguration`.
    """
    blocks = _blocks(files, paths)
    wanted = dict.fromkeys(registries)
    if registry:
        wanted.pop(registry.authority, None)
        own = blocks.setdefault(registry.authority, {"location": registry.authority})
        if registry.is_plain_http:
            own["insecure"] = True
    for name in wanted:
        blocks.setdefault(name, {"location": name})
    skipped = [prefix for prefix, row in blocks.items() if _is_skipped(prefix, row)]
    path = paths.containers / "registries.conf.d" / FILE
    try:
        body = "\n".join(
            _block(prefix, row, _mirror(agent, prefix, registry))
            for prefix, row in sorted(blocks.items())
            if prefix not in skipped
        )
    except NoSafeEdit as error:
        raise InvalidConfiguration(path, str(error)) from error
    content = block(f"docket agent setup {ENGINE} --undo removes it", body)
    names = ", ".join(sorted(set(blocks) - set(skipped)))
    change = FileChange(path, content.encode(), f"{agent.authority} is asked before {names}")
    notes = ["podman and CRI-O have no setting for all registries: name others with --registry"]
    if skipped:
        notes.append(f"{', '.join(skipped)}: a wildcard, a blocked prefix or the agent is left out")
    return Plan(ENGINE, (change,), tuple(notes), ("systemctl reload crio  # where CRI-O runs",))


def _blocks(files: HostFiles, paths: Paths) -> dict[str, Table]:
    """All `[[registry]]` blocks that count now, by prefix."""
    blocks: dict[str, Table] = {}
    for path in _sources(files, paths):
        try:
            blocks |= _parsed(files.text(path) or "")
        except NoSafeEdit as error:
            raise InvalidConfiguration(path, str(error)) from error
    return blocks


def _parsed(text: str) -> dict[str, Table]:
    values = parse(text)
    if "registries" in values:
        raise NoSafeEdit("it has the old form, which takes no mirrors")
    blocks = {}
    for row in tables_at(values, "registry"):
        prefix = row.get("prefix") or row.get("location")
        if not isinstance(prefix, str):
            raise NoSafeEdit("a registry has neither a prefix nor a location")
        blocks[prefix] = {**row, _MIRROR: tables_at(row, _MIRROR)}
    return blocks


def _sources(files: HostFiles, paths: Paths) -> Iterator[Path]:
    """registries.conf, the user's own instead of the system's, then drop-ins in their order."""
    folders = list(dict.fromkeys([_SYSTEM, paths.containers]))
    mains = [folder / "registries.conf" for folder in reversed(folders)]
    yield from [path for path in mains if files.read(path) is not None][:1]
    for folder in folders:
        drop_ins = folder / "registries.conf.d"
        for name in files.names(drop_ins):
            if name.endswith(".conf"):
                yield drop_ins / name


def _is_skipped(prefix: str, row: Mapping[str, Any]) -> bool:
    """A mirror of ``*.example.com`` doesn't show which registry an image is of."""
    return "*" in prefix or bool(row.get("blocked"))


def _mirror(agent: AgentAddress, prefix: str, registry: Registry | None) -> str:
    """Where the agent has the images of *prefix*, which is replaced by this in their names.

    A repository's name can't have a colon: ``host:5000`` is ``host_5000`` there.
    """
    own = registry.authority if registry else ""
    if own and (prefix == own or prefix.startswith(f"{own}/")):
        return f"{agent.authority}{prefix.removeprefix(own)}"
    return f"{agent.authority}/{prefix.replace(':', '_')}"


def _block(prefix: str, row: Mapping[str, Any], mirror: str) -> str:
    """A registry's block with the agent before its other mirrors."""
    own = {"prefix": prefix, **{key: value for key, value in row.items() if key != _MIRROR}}
    others = row.get(_MIRROR, [])
    agent = {"location": mirror, "insecure": True}
    mirrors = [
        agent,
        *(row_mirror for row_mirror in others if row_mirror.get("location") != mirror),
    ]
    return table("[[registry]]", own, indent="") + "".join(
        table("[[registry.mirror]]", row_mirror, indent="") for row_mirror in mirrors
    )
