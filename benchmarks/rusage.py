"""Run a command, and tell what it took as JSON on a file descriptor.

    python -SE benchmarks/rusage.py DESCRIPTOR COMMAND ARGUMENT ...

What the kernel tells of a process's peak memory is never less than what the process had that
started it. So whatever is measured is started by this one, which is small.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> int:
    """The exit code is that of the command."""
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    began = time.monotonic()
    pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
    _, status, used = os.wait4(pid, 0)
    told = {
        "wall": time.monotonic() - began,
        "cpu": used.ru_utime + used.ru_stime,
        "peak_rss": used.ru_maxrss * 1024,
    }
    os.write(descriptor, json.dumps(told).encode())
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
