"""What setup plans for containerd: folders of registries, and the CRI setting that names them."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from docket.errors import InvalidConfiguration
from docket.hooks.containerd import plan_containerd
from docket.hooks.docker import DockerFacts, plan_docker
from docket.hooks.files import HostFiles
from docket.hooks.plan import Plan, Registry
from tests.hooks.conftest import AGENT, PATHS, put, snapshot
from tests.support.requirements import need

Open = Callable[[], HostFiles]

CONFIG = "/etc/containerd/config.toml"
CERTS = "/etc/containerd/certs.d"
CRI = 'plugins."io.containerd.grpc.v1.cri".registry'
IMAGES = 'plugins."io.containerd.cri.v1.images".registry'
URL = "http://127.0.0.1:5000"


def config(plan: Plan) -> dict[str, Any]:
    """The planned config.toml; empty if it stays as it is."""
    contents = [change.content for change in plan.changes if str(change.path) == CONFIG]
    return tomllib.loads(contents[0].decode()) if contents else {}


def registry_of(plan: Plan, plugin: str) -> dict[str, Any]:
    """The registry settings of a plugin in the planned config.toml."""
    settings: dict[str, Any] = config(plan)["plugins"][plugin]["registry"]
    return settings


def folders(plan: Plan) -> list[str]:
    """The planned hosts.toml files' folders."""
    return [str(change.path.parent) for change in plan.changes if change.path.name == "hosts.toml"]


@pytest.mark.parametrize(
    ("version", "plugin"),
    [
        ("1.6.20~ds1", "io.containerd.grpc.v1.cri"),
        ("2.4.2", "io.containerd.cri.v1.images"),
        (None, "io.containerd.grpc.v1.cri"),
    ],
)
def test_a_new_config_fits_the_version(open_files: Open, version: str | None, plugin: str) -> None:
    """Version 2 of the file is read by containerd 1 and 2, version 3 by 2 alone."""
    plan = plan_containerd(open_files(), PATHS, AGENT, version)
    assert registry_of(plan, plugin) == {"config_path": CERTS}
    assert folders(plan) == [f"{CERTS}/_default"]
    assert plan.next_steps == ("systemctl restart containerd",)


@pytest.mark.parametrize(
    ("text", "plugin"),
    [
        ("[plugins.cri.registry]\n  x = 1\n", "cri"),
        ("version = 2\n", "io.containerd.grpc.v1.cri"),
        (f"version = 2\n[{CRI}]\n    config_path = ''  # none\n", "io.containerd.grpc.v1.cri"),
        (f"version = 3\n[{IMAGES}]\n", "io.containerd.cri.v1.images"),
        ("version = 4\n", "io.containerd.cri.v1.images"),
    ],
)
def test_each_version_has_its_plugin(root: Path, open_files: Open, text: str, plugin: str) -> None:
    """config_path is set where the file's version has the CRI plugin's registries."""
    put(root, CONFIG, text)
    plan = plan_containerd(open_files(), PATHS, AGENT)
    assert registry_of(plan, plugin)["config_path"] == CERTS


def test_the_dump_of_this_machine_s_containerd_is_edited(root: Path, open_files: Open) -> None:
    """`containerd config default` is how most config.toml files begin: one line changes."""
    need("containerd")
    argv = [str(shutil.which("containerd")), "config", "default"]
    dumped = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    put(root, CONFIG, dumped)
    plan = plan_containerd(open_files(), PATHS, AGENT)
    (content,) = [change.content.decode() for change in plan.changes if str(change.path) == CONFIG]
    assert len(set(content.splitlines()) - set(dumped.splitlines())) == 1
    assert CERTS in content


def test_a_folder_that_is_named_is_used(root: Path, open_files: Open) -> None:
    """config_path that is set stays, and config.toml with it; no restart is needed."""
    put(root, CONFIG, f'version = 2\n[{CRI}]\nconfig_path = "/a/certs.d:/b/certs.d"\n')
    put(root, "/a/certs.d/r.corp/hosts.toml", 'server = "https://r"\n')
    put(root, "/b/certs.d/s.corp/ca.crt", "PEM")
    plan = plan_containerd(open_files(), PATHS, AGENT)
    assert config(plan) == {}
    # _default is in the last folder: in the first it would hide s.corp
    assert folders(plan) == ["/a/certs.d/r.corp", "/b/certs.d/s.corp", "/b/certs.d/_default"]
    assert plan.next_steps == ()


def test_an_imported_file_counts(root: Path, open_files: Open) -> None:
    """Drop-ins override the main file: what they name is used."""
    put(root, CONFIG, 'version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n')
    put(root, "/etc/containerd/conf.d/k.toml", f'version = 2\n[{CRI}]\nconfig_path = "/k"\n')
    plan = plan_containerd(open_files(), PATHS, AGENT)
    assert config(plan) == {}
    assert folders(plan) == ["/k/_default"]


@pytest.mark.parametrize(
    "text",
    [
        f'version = 2\n[{CRI}.mirrors."docker.io"]\nendpoint = ["https://m"]\n',
        f'version = 2\n[{CRI}.configs."r.corp".tls]\nca_file = "x"\n',
        "version = 9\n",
        'version = "2"\n',
        "version = 2\nplugins = 3\n",
        f"version = 2\n[{CRI}]\nconfig_path = 3\n",
        f'version = 2\n[{CRI}]\nconfig_path = "certs.d"\n',
        f"version = 2\n[{CRI}]\nconfigs = 3\n",
        "imports = 3\n",
        "disabled_plugins = [3]\n",
        "version = \n",
    ],
)
def test_a_config_that_would_break_containerd_is_refused(
    root: Path, open_files: Open, text: str
) -> None:
    """With mirrors beside config_path the CRI plugin doesn't start: nothing is written."""
    put(root, CONFIG, text)
    with pytest.raises(InvalidConfiguration, match=r"config\.toml"):
        plan_containerd(open_files(), PATHS, AGENT)


@pytest.mark.parametrize("name", ["cri", "io.containerd.grpc.v1.cri"])
def test_without_the_cri_plugin_its_config_stays(root: Path, open_files: Open, name: str) -> None:
    """Docker's package disables CRI: the folders are written for other clients, with a note."""
    put(root, CONFIG, f'disabled_plugins = ["{name}"]\n')
    plan = plan_containerd(open_files(), PATHS, AGENT)
    assert config(plan) == {}
    assert any("CRI plugin is disabled" in note for note in plan.notes)


def test_docker_s_folders_count_too(root: Path, open_files: Open) -> None:
    """Newer versions read Docker's folders by default: they are not hidden, and both are undone."""
    put(root, "/etc/docker/certs.d/r.corp/ca.crt", "PEM")
    before = snapshot(root)
    files = open_files()
    files.apply(plan_docker(files, PATHS, AGENT, DockerFacts("28.0", is_containerd_store=True)))
    files = open_files()
    plan = plan_containerd(files, PATHS, AGENT)
    both = f"{CERTS}:/etc/docker/certs.d"
    assert registry_of(plan, "io.containerd.grpc.v1.cri") == {"config_path": both}
    files.apply(plan)
    open_files().undo("docker")
    assert (root / "etc/docker/certs.d/_default/hosts.toml").exists()
    open_files().undo("containerd")
    assert snapshot(root) == before


def test_docket_s_registry_has_a_folder(root: Path, open_files: Open) -> None:
    """Images named by docket's registry are found over plain HTTP without the agent too."""
    put(root, CONFIG, "# mine\nversion = 2\n")
    before = snapshot(root)
    files = open_files()
    plan = plan_containerd(files, PATHS, AGENT, None, Registry("registry:8000", is_plain_http=True))
    files.apply(plan)
    text = (root / f"{CERTS}/registry:8000/hosts.toml".removeprefix("/")).read_text()
    assert tomllib.loads(text)["server"] == "http://registry:8000"
    assert list(tomllib.loads(text)["host"]) == [URL]
    open_files().undo("containerd")
    assert snapshot(root) == before
