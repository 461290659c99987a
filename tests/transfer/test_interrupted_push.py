"""A push that is ended by a signal: soon, and with nothing left on the host or in the registry."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.commands import DOCKET, environment
from tests.support.http_servers import Handler, serving
from tests.support.images import release

IMAGE = release("app:1.0", [("large", 40_000_000)])
MOST_SECONDS = 15.0  # 5 in the documents; other tests take the processors meanwhile


class Uploads:
    """A registry that lacks everything, and reads an upload slowly, or not if it *stalls*."""

    def __init__(self, *, stalls: bool) -> None:
        self.stalls = stalls
        self.began = threading.Event()
        self.deleted = threading.Event()

    def respond(self, handler: Handler) -> None:
        """Answer a request."""
        if handler.path.endswith("/missing"):
            handler.respond(200, b'{"held":[],"missing":[]}')
        elif handler.command == "POST":
            handler.respond(202, b"", {"Location": "/v2/app/blobs/uploads/1"})
        elif handler.command == "DELETE":
            self.deleted.set()
            handler.respond(204)
        else:
            handler.respond(404)

    def begin_patch(self, handler: Handler) -> None:
        """Read a little of an upload, and let the rest wait or come slowly."""
        self.began.set()
        while not handler.server.closing.wait(0.05):
            if not self.stalls and not handler.rfile.read1(1 << 16):
                return


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("stalls", [False, True])
def test_a_push_that_is_ended_by_a_signal(
    tmp_path: Path, stalls: bool, number: signal.Signals
) -> None:
    """The upload session is deleted where the registry answers; a silent one holds nobody up."""
    archive = IMAGE.archive(tmp_path / "app.tar")
    spool = tmp_path / "spool"
    spool.mkdir()
    uploads = Uploads(stalls=stalls)
    with serving(uploads.respond, on_patch=uploads.begin_patch) as server:
        argv = [*DOCKET, "-h", server.url, "push", "app:1.0", "--archive", str(archive)]
        variables = {**environment(), "TMPDIR": str(spool)}
        with subprocess.Popen(argv, env=variables, stderr=subprocess.PIPE, text=True) as push:
            assert uploads.began.wait(60)
            os.kill(push.pid, number)
            _, errors = push.communicate(timeout=MOST_SECONDS)
        assert push.returncode == 128 + number
        assert uploads.deleted.is_set() or stalls
    assert [line for line in errors.splitlines() if line.startswith("docket:")] == [
        errors.splitlines()[-1]
    ]
    assert "Traceback" not in errors
    assert list(spool.iterdir()) == []
