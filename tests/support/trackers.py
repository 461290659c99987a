"""A real foreign tracker, opentracker, that serves only the swarms on its whitelist."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import answers, environment, free_port, short_folder, started
from tests.support.requirements import need


@dataclass(frozen=True, slots=True)
class Tracker:
    """A running opentracker."""

    address: str
    port: int
    whitelist: Path
    process: subprocess.Popen[bytes]

    @property
    def announce(self) -> str:
        """Its announce URL."""
        return f"http://{self.address}:{self.port}/announce"

    def allow(self, *info_hashes: str) -> None:
        """Add *info_hashes* (hex) to the whitelist; it is read again soon, not at once."""
        with self.whitelist.open("a") as lines:
            lines.writelines(f"{info_hash}\n" for info_hash in info_hashes)
        self.process.send_signal(signal.SIGHUP)


@contextmanager
def opentracker(
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    allowed: Sequence[str] = (),
    wrapper: Sequence[str] = (),
) -> Iterator[Tracker]:
    """opentracker at *address*; it refuses every info-hash that is not *allowed* (hex).

    Debian's opentracker can't run open to all. *wrapper* goes before the command, e.g.
    Host.enter; then *port* must be given.
    """
    need("opentracker")
    port = port or free_port(address)
    with short_folder() as folder:
        whitelist = folder / "whitelist"
        whitelist.write_text("".join(f"{info_hash}\n" for info_hash in allowed))
        folder.chmod(0o755)
        # It changes its root to -d, so -w is a path in there.
        where = ["-i", address, "-p", str(port), "-P", str(port), "-d", str(folder)]
        argv = [*wrapper, "opentracker", *where, "-w", whitelist.name]

        def ready() -> bool:
            if wrapper:
                probe = [*wrapper, "bash", "-c", f": < /dev/tcp/{address}/{port}"]
                return not subprocess.run(probe, check=False, capture_output=True).returncode
            return answers(address, port)

        with started(argv, log=folder / "log", ready=ready, env=environment()) as process:
            yield Tracker(address, port, whitelist, process)
