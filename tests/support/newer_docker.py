"""A newer Debian's Docker in a chroot that is built once and then kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.debian import PartMissing, StepFailed, bootstrap
from tests.support.engines import (
    DOCKERD_FLAGS,
    Engine,
    connected,
    dockerd_places,
    ended,
    holds_overlays,
    pings,
)
from tests.support.locks import exclusive
from tests.support.processes import environment, short_folder, started
from tests.support.requirements import cache, missing, need, need_root

_PACKAGES = ("base-files", "bash", "ca-certificates", "docker.io", "mount")

# All mounts are in a mount namespace of dockerd's own: they end with it.
_ENTER = """
set -e
chroot=$1 root=$2 place=$3 etc=$4
shift 4
# dockerd remounts its /, so that has to be a mount.
mount --bind "$chroot" "$chroot"
for folder in proc sys dev; do
  mkdir -p "$chroot/$folder"
  mount --rbind "/$folder" "$chroot/$folder"
done
for folder in run tmp var etc/docker; do
  mkdir -p "$chroot/$folder"
  mount -t tmpfs tmpfs "$chroot/$folder"
done
mkdir -p "$chroot/var/lib" "$chroot/var/run" "$chroot/var/tmp"
if [ -n "$etc" ]; then
  mount --bind "$etc" "$chroot/etc/docker"
fi
for folder in "$root" "$place"; do
  mkdir -p "$chroot$folder"
  mount --bind "$folder" "$chroot$folder"
done
exec chroot "$chroot" "$@"
"""


@contextmanager
def newer_dockerd(
    root: Path,
    *,
    containerd_store: bool,
    storage_driver: str = "",
    suite: str = "sid",
    wrapper: Sequence[str] = (),
    etc_docker: Path | None = None,
    daemon_settings: Mapping[str, object] | None = None,
) -> Iterator[Engine]:
    """Docker of Debian *suite* (sid: 28, trixie: 26) with its images under *root*.

    *containerd_store* keeps images in containerd, else in Docker's graph driver.
    *etc_docker* is mounted as its /etc/docker; *daemon_settings* are those of daemon.json.
    *storage_driver* and *wrapper* are as for dockerd(). The test is skipped when the chroot
    can't be built. Leaving ends all it started; *root* stays.
    """
    need("unshare", "chroot", "mount")
    need_root()
    chroot = chroot_of(suite)
    overlays, copies = ("overlayfs", "native") if containerd_store else ("overlay2", "vfs")
    driver = storage_driver or (overlays if holds_overlays(root) else copies)
    with short_folder() as folder:
        socket = folder / "d.sock"
        config = folder / "daemon.json"
        features = {"features": {"containerd-snapshotter": containerd_store}}
        config.write_text(json.dumps({**(daemon_settings or {}), **features}))
        enter = [*wrapper, "unshare", "--mount", "--propagation=slave", "sh", "-c", _ENTER, "enter"]
        argv = [
            *enter,
            str(chroot),
            str(root.resolve()),
            str(folder),
            str(etc_docker or ""),
            "dockerd",
            f"--config-file={config}",
            f"--storage-driver={driver}",
            *dockerd_places(root.resolve(), folder),
            *DOCKERD_FLAGS,
        ]
        path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        running = started(
            argv, log=folder / "log", ready=lambda: pings(socket), env=environment(**path)
        )
        with ended(root, folder), running, connected(socket) as engine:
            yield engine


def chroot_of(suite: str) -> Path:
    """The folder with Docker of Debian *suite*, built if it isn't there; in some ten seconds.

    It is under DOCKET_TEST_CACHE, or ~/.cache/docket-tests.
    """
    need("mmdebstrap")
    target = cache() / f"docker-{suite}"
    with exclusive(cache() / f".docker-{suite}.lock"):
        if not target.exists():
            try:
                bootstrap(suite, target, variant="extract", include=_PACKAGES)
            except (PartMissing, StepFailed) as error:
                missing(f"Docker of Debian {suite} ({str(error)[-400:]})")
    return target
