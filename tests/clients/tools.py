"""The clients that are tried, each built once from its Go module into the tests' cache.

    python -m tests.clients.tools [NAME ...]

builds the named ones, or all, one after the other, and prints where each is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.locks import exclusive
from tests.support.requirements import cache, missing

ALL = "DOCKET_ALL_CLIENTS"
"""With 1, tests use all clients, as in `make clients`; else those that CI builds."""

IN_CI = ("crane", "oras", "regctl")
"""They build in under a minute each on two idle processors, once."""


@dataclass(frozen=True, slots=True)
class Client:
    """The *package* of a Go *module* at a *version*."""

    module: str
    package: str
    version: str

    @property
    def program(self) -> str:
        """The name of its command."""
        return self.package.rpartition("/")[2] or self.module.rpartition("/")[2]

    @property
    def path(self) -> Path:
        """Where its command is once it is built."""
        return cache() / "go" / f"{self.program}-{self.version}" / self.program


CLIENTS = {
    "crane": Client("github.com/google/go-containerregistry", "cmd/crane", "v0.22.1"),
    "oras": Client("oras.land/oras", "cmd/oras", "v1.3.6"),
    "regctl": Client("github.com/regclient/regclient", "cmd/regctl", "v0.11.7"),
    "umoci": Client("github.com/opencontainers/umoci", "cmd/umoci", "v0.6.0"),
    "buildctl": Client("github.com/moby/buildkit", "cmd/buildctl", "v0.34.2"),
    "buildkitd": Client("github.com/moby/buildkit", "cmd/buildkitd", "v0.34.2"),
    "ko": Client("github.com/google/ko", "", "v0.19.1"),
    "cosign3": Client("github.com/sigstore/cosign/v3", "cmd/cosign", "v3.1.3"),
    "cosign2": Client("github.com/sigstore/cosign/v2", "cmd/cosign", "v2.6.5"),
    "helm4": Client("helm.sh/helm/v4", "cmd/helm", "v4.3.1"),
    "helm3": Client("helm.sh/helm/v3", "cmd/helm", "v3.22.0"),
}
"""By name, with the major version where two are tried."""


class BuildFailed(RuntimeError):
    """Go could not build a client; the end of its output is shown."""


def client(name: str) -> Path:
    """The command of the client *name*; the test is skipped where it isn't built.

    It fails instead with DOCKET_ALL_CLIENTS=1, and for those that CI builds with
    DOCKET_REQUIRE_PARTS=1 on a machine with Go.
    """
    wanted = CLIENTS[name]
    all_required = os.environ.get(ALL) == "1"
    if name not in IN_CI and not all_required:
        pytest.skip(f"{name} is tried by `make clients`")
    if not wanted.path.exists():
        instructions = f"{name} {wanted.version} (python -m tests.clients.tools {name})"
        if all_required:
            pytest.fail(f"part missing: {instructions}", pytrace=False)
        if shutil.which("go") is None:
            pytest.skip(f"part missing: {instructions}; building it takes Go")
        missing(instructions)
    return wanted.path


def build(wanted: Client) -> Path:
    """Build *wanted* with the dependencies that its own go.sum names; its command.

    Returning means that the command is whole. Raises BuildFailed.
    """
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(wanted.path.parent):
        if not wanted.path.exists():
            partial = wanted.path.with_name(f".partial-{wanted.program}")
            # inside the module: its replace and exclude lines hold, as its makers build it
            where = ("-C", _download(wanted), "-mod=readonly", "-trimpath", "-ldflags=-s -w")
            _go("build", *where, "-o", str(partial), f"./{wanted.package}")
            partial.rename(wanted.path)
    return wanted.path


def _download(wanted: Client) -> str:
    """The folder of the module's source."""
    answer = json.loads(_go("mod", "download", "-json", f"{wanted.module}@{wanted.version}"))
    return str(answer["Dir"])


def _go(*arguments: str) -> str:
    if shutil.which("go") is None:
        raise BuildFailed("go is missing; install Go from https://go.dev/dl")
    settings = {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"}
    argv = ["nice", "go", *arguments]
    # outside of any module
    done = subprocess.run(
        argv, cwd=cache(), env=os.environ | settings, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BuildFailed(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def main() -> None:
    """Build and print."""
    for name in sys.argv[1:] or CLIENTS:
        print(f"{name} {CLIENTS[name].version}: {build(CLIENTS[name])}", flush=True)


if __name__ == "__main__":
    main()
