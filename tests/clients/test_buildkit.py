"""BuildKit: an image and its build cache go into the registry, and the cache comes back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.clients.conftest import Tool, Tools
from tests.clients.tools import client
from tests.support.agent_process import agent_process
from tests.support.commands import Commands
from tests.support.images import tiny_image
from tests.support.processes import answers, short_folder, started
from tests.support.requirements import need, need_root

_FORMS = (
    "image-manifest=false,oci-mediatypes=true",
    "image-manifest=false,oci-mediatypes=false",
    "image-manifest=true,oci-mediatypes=true",
)
"""An index of layers, the same as a manifest list, and an image."""

Builder = Callable[..., AbstractContextManager[Tool]]


@pytest.fixture
def builder(tool: Tools, address: str) -> Builder:
    """buildctl beside a buildkitd of its own, which has no cache and uses plain HTTP.

    Called with more lines of its configuration, if any.
    """
    need("runc")
    need_root()
    buildctl, buildkitd = tool("buildctl"), client("buildkitd")

    @contextmanager
    def start(more: str = "") -> Iterator[Tool]:
        with short_folder() as folder:
            config, socket = folder / "buildkitd.toml", folder / "s.sock"
            config.write_text(f'[registry."{address}"]\n  http = true\n{more}')
            worker = ("--oci-worker=true", "--containerd-worker=false", "--oci-worker-net=host")
            where = ("--root", folder / "root", "--addr", f"unix://{socket}", "--config", config)
            argv = [*map(str, (buildkitd, *where)), *worker, "--oci-worker-snapshotter=native"]
            with started(argv, log=folder / "log", ready=lambda: answers(socket)):
                yield Tool(buildctl.path, buildctl.folder, {"BUILDKIT_HOST": f"unix://{socket}"})

    return start


@pytest.fixture
def context(tool: Tools, pushed: str) -> Path:
    """A folder to build in, on top of the image in the registry."""
    folder = tool("buildctl").folder / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {pushed}\nCOPY one /one\nCOPY two /two\n")
    for name in ("one", "two"):
        (folder / name).write_text(name)
    return folder


def _build(buildctl: Tool, context: Path, *options: str) -> str:
    """Build; what buildctl says of it."""
    local = (f"--local=context={context}", f"--local=dockerfile={context}")
    log = buildctl.folder / "trace"
    trace = (f"--trace={log}", "--progress=plain")
    buildctl("build", *trace, "--frontend=dockerfile.v0", *local, *options)
    return log.read_text()


@pytest.mark.parametrize("form", _FORMS)
def test_a_build_cache_comes_back(builder: Builder, context: Path, address: str, form: str) -> None:
    """Exported in each form that BuildKit has; another builder runs no step again."""
    cache = f"type=registry,ref={address}/build/cache:1"
    with builder() as first:
        cold = _build(first, context, f"--export-cache={cache},mode=max,{form}")
    with builder() as second:
        warm = _build(second, context, f"--import-cache={cache}")
    assert not re.search(r'COPY two[^}]*"cached":true', cold)
    assert re.search(r'COPY two[^}]*"cached":true', warm)


def test_docket_pulls_what_buildkit_pushed(
    builder: Builder, context: Path, address: str, host: Callable[[str], Commands]
) -> None:
    """An index with an attestation beside the image: the image is chosen, its layers are held."""
    output = f"type=image,name={address}/build/app:1,push=true,oci-mediatypes=true"
    with builder() as buildctl:
        options = ("--output", f"{output},compression=zstd", "--opt=attest:provenance=mode=max")
        _build(buildctl, context, *options)
    pulled = host("a")("pull", "build/app:1", "--layers-only")
    assert len(pulled["layers"]) == 4
    assert {layer["source"] for layer in pulled["layers"]} <= {"swarm", "held"}


def test_a_build_on_a_foreign_image_comes_through_the_agent(
    builder: Builder, context: Path, registry_url: str, host: Callable[[str], Commands]
) -> None:
    """``FROM ghcr.io/…`` with the agent as its mirror: no request goes to ghcr.io."""
    archive = context.parent / "foreign.tar"
    archive.write_bytes(tiny_image("foreign").docker_save())
    host("builder")("push", "ghcr.io/acme/app:1.1", "--archive", archive)
    (context / "Dockerfile").write_text("FROM ghcr.io/acme/app:1.1\nCOPY one /one\n")
    with agent_process(registry_url, context.parent / "agent") as agent:
        address = urlsplit(agent.url).netloc
        mirror = f'[registry."ghcr.io"]\n  mirrors = ["{address}"]\n'
        plain = f'[registry."{address}"]\n  http = true\n'
        with builder(mirror + plain) as buildctl:
            out = context.parent / "out.tar"
            _build(buildctl, context, "--output", f"type=docker,dest={out}")
    built = host("builder")("push", "built:1", "--archive", out)["layers"]
    assert [layer["diff_id"] for layer in built][:2] == [
        str(diff_id) for diff_id in tiny_image("foreign").diff_ids
    ]
