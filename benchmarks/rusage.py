"""Run a command, and write what it took as JSON on a file descriptor.

    python -SE benchmarks/rusage.py DESCRIPTOR COMMAND ARGUMENT ...

The kernel never reports a smaller peak memory for a process than that of the process that started
it. So measured commands are started by this one, which is small.
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
    used_resources = {
        "wall": time.monotonic() - began,
        "cpu": used.ru_utime + used.ru_stime,
        "peak_rss": used.ru_maxrss * 1024,
    }
    os.write(descriptor, json.dumps(used_resources).encode())
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
