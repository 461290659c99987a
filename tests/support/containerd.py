"""containerd by itself, of this machine or of a newer Debian, pulled with as kubelet does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.engines import ended
from tests.support.newer_docker import chroot_of
from tests.support.processes import answers, environment, short_folder, started
from tests.support.requirements import need, need_root

# All mounts are in a mount namespace of containerd's own: they end with it.
_ENTER = """
set -e
chroot=$1 etc=$2 certs=$3 root=$4 place=$5
shift 5
if [ -n "$chroot" ]; then
  mount --bind "$chroot" "$chroot"
  for folder in proc sys dev; do
    mkdir -p "$chroot/$folder"
    mount --rbind "/$folder" "$chroot/$folder"
  done
  for folder in run tmp; do
    mkdir -p "$chroot/$folder"
    mount -t tmpfs tmpfs "$chroot/$folder"
  done
  for folder in "$root" "$place"; do
    mkdir -p "$chroot$folder"
    mount --bind "$folder" "$chroot$folder"
  done
fi
mount -t tmpfs tmpfs "$chroot/etc"
printf '127.0.0.1 localhost registry.test\n' > "$chroot/etc/hosts"
mkdir -p "$chroot/etc/containerd" "$chroot/etc/docker"
mount --bind "$etc" "$chroot/etc/containerd"
mount --bind "$certs" "$chroot/etc/docker"
if [ -n "$chroot" ]; then
  exec chroot "$chroot" "$@"
fi
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Containerd:
    """A running containerd that answers at *socket*; *enter* runs a command where it runs."""

    socket: Path
    enter: tuple[str, ...]

    def cri_pull(self, image: str) -> str:
        """Pull *image* as kubelet does; gives its id. Raises `PullFailed`."""
        name = image.encode()
        spec = b"\n" + _varint(len(name)) + name  # ImageSpec.image, field 1
        request = b"\n" + _varint(len(spec)) + spec  # PullImageRequest.image, field 1
        return self._call("PullImage", request)[2:].decode()  # PullImageResponse.image_ref

    def ctr(self, *arguments: str) -> str:
        """A command of ctr; gives its output. Raises `PullFailed`."""
        argv = [*self.enter, "ctr", f"--address={self.socket}", *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment())
        if done.returncode:
            raise PullFailed(done.stderr)
        return done.stdout

    def _call(self, method: str, request: bytes) -> bytes:
        """A gRPC call of the CRI image service, by curl: it speaks HTTP/2 on a Unix socket."""
        need("curl")
        argv = ["curl", "--silent", "--show-error", "--http2-prior-knowledge"]
        argv += ["--unix-socket", str(self.socket), "--dump-header", "/dev/stderr"]
        argv += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        argv += ["--data-binary", "@-", f"http://localhost/runtime.v1.ImageService/{method}"]
        frame = b"\0" + len(request).to_bytes(4, "big") + request
        done = subprocess.run(argv, input=frame, capture_output=True, check=False)
        if done.returncode or b"grpc-status: 0" not in done.stderr:
            raise PullFailed(done.stderr.decode(errors="replace"))
        return done.stdout[5:]


class PullFailed(AssertionError):
    """containerd refused a pull."""


@contextmanager
def containerd(
    root: Path, *, etc_containerd: Path, etc_docker: Path, suite: str = ""
) -> Iterator[Containerd]:
    """containerd with its images under *root* and the two folders as its configuration.

    The name registry.test is 127.0.0.1 there.

    *suite* is the Debian whose containerd runs, this machine's if empty.
    """
    need("unshare", "mount")
    need_root()
    if not suite:
        need("containerd", "ctr")
    chroot = chroot_of(suite) if suite else ""
    root.mkdir(parents=True, exist_ok=True)
    with short_folder() as folder:
        socket = folder / "c.sock"
        enter = ["unshare", "--mount", "--propagation=slave", "sh", "-c", _ENTER, "enter"]
        enter += map(str, (chroot, etc_containerd, etc_docker, root.resolve(), folder))
        options = [f"--root={root.resolve()}", f"--state={folder / 's'}", f"--address={socket}"]
        path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        running = started(
            [*enter, "containerd", "--config=/etc/containerd/config.toml", *options],
            log=folder / "log",
            ready=lambda: answers(socket),
            env=environment(**path),
        )
        with ended(root, folder), running:
            yield Containerd(socket, tuple(enter))


def _varint(number: int) -> bytes:
    """Protocol Buffers' variable-length integer."""
    low = number & 0x7F
    return bytes([low]) if number < 0x80 else bytes([low | 0x80]) + _varint(number >> 7)
