"""Engines set up by ``docket agent setup``: a host's files, and commands that read them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner

from docket.cli import cli
from tests.support.engines import Engine
from tests.support.requirements import need, need_root

# containerd 1.6 and 2.1 without overlays, which a test's folder may not be able to hold
CONTAINERD_CONFIG = {
    "": 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd]\n  snapshotter = "native"\n',
    "sid": "version = 3\n[plugins.'io.containerd.cri.v1.images']\n  snapshotter = 'native'\n"
    "[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]\n"
    "  platform = 'linux/amd64'\n  snapshotter = 'native'\n",
}


def run(*argv: object) -> str:
    """A command that must end well; gives its standard output."""
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def setup(root: Path, target: str, agent: str, *options: str) -> str:
    """docket agent setup *target* on the host at *root*; gives its output."""
    argv = [*options, "agent", "setup", target, "--listen", agent, "--root", str(root)]
    done = CliRunner().invoke(cli, argv)
    assert done.exit_code == 0, done.output
    return done.output


def undo(root: Path, target: str) -> None:
    """docket agent setup *target* --undo on the host at *root*."""
    argv = ["agent", "setup", target, "--undo", "--root", str(root)]
    assert CliRunner().invoke(cli, argv).exit_code == 0


def folder(root: Path, path: str) -> Path:
    """A folder of the host, made if it isn't there."""
    real = root / path
    real.mkdir(parents=True, exist_ok=True)
    return real


def pull(engine: Engine, name: str) -> str:
    """Pull an image; gives the engine's id for it."""
    return str(engine.client.images.pull(name).id)


def remove_all(engine: Engine) -> None:
    """Remove every image of the engine."""
    for image in engine.client.images.list():
        engine.client.images.remove(image.id, force=True)


def podman_tools(root: Path, folder: Path) -> dict[str, Sequence[object]]:
    """The commands that read registries.conf, in a mount namespace with the host's files."""
    need("podman", "skopeo", "buildah", "unshare")
    need_root()
    bind = f'mount --bind "{root}/etc/containers" /etc/containers; exec "$@"'
    enter = ("unshare", "--mount", "--propagation=slave", "sh", "-ec", bind, "enter")
    folders = (f"--root={folder / 'images'}", f"--runroot={folder / 'run'}", "--storage-driver=vfs")
    return {
        "podman": (*enter, "podman", *folders, f"--tmpdir={folder / 'tmp'}", "pull"),
        "buildah": (*enter, "buildah", *folders, "pull", "--policy=always"),
        "skopeo": (*enter, "skopeo", "inspect", "--raw"),
    }
