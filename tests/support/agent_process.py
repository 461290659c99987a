"""``docket agent`` as a process of a test's own, and what an engine asks of it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from tests.support.commands import DOCKET, CommandFailed, environment

ACCEPT = {
    "Accept": "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"
}
_READY_SECONDS = 60.0
_END_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class AgentProcess:
    """A running agent: its *url*, its host's store, and its process."""

    url: str
    location: Path
    process: subprocess.Popen[str]
    pool: urllib3.PoolManager
    log: Path

    def get(self, path: str, **headers: str) -> urllib3.BaseHTTPResponse:
        """GET below /v2/."""
        return self.pool.request("GET", f"{self.url}/v2/{path}", headers={**ACCEPT, **headers})

    def stream(self, path: str, **headers: str) -> urllib3.BaseHTTPResponse:
        """The same, with the body still to be read."""
        return self.pool.request(
            "GET", f"{self.url}/v2/{path}", headers={**ACCEPT, **headers}, preload_content=False
        )

    def pull(self, repository: str, reference: str) -> dict[str, Any]:
        """The manifest of an image, after all of its blobs were read and hashed."""
        answer = self.get(f"{repository}/manifests/{reference}")
        assert answer.status == 200, answer.data
        manifest: dict[str, Any] = json.loads(answer.data)
        for blob in (manifest["config"], *manifest["layers"]):
            content = self.get(f"{repository}/blobs/{blob['digest']}").data
            assert len(content) == blob["size"]
            assert f"sha256:{hashlib.sha256(content).hexdigest()}" == blob["digest"]
        return manifest


@contextmanager
def agent_process(
    url: str, location: Path, *options: str, wrapper: Sequence[str] = ()
) -> Iterator[AgentProcess]:
    """An agent for the registry at *url*, with its host's store at *location*; it must end well."""
    listen = () if "--listen" in options else ("--listen", "127.0.0.1:0")
    argv = [*wrapper, *DOCKET, "-h", url, "-l", str(location), "--json", "agent", *listen, *options]
    log = location.parent / f"{location.name}.agent.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment()
        ) as process,
        urllib3.PoolManager(retries=False, timeout=60) as pool,
    ):
        watchdog = threading.Timer(_READY_SECONDS, process.kill)
        watchdog.start()
        try:
            assert process.stdout
            line = process.stdout.readline()
            watchdog.cancel()
            if not line:
                raise CommandFailed(argv, process.wait(), log.read_text())
            yield AgentProcess(json.loads(line)["url"], location, process, pool, log)
        finally:
            watchdog.cancel()
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert "Traceback" not in log.read_text(), log.read_text()
