"""``docket agent status``, what a registry knows of a host, and how an agent ends."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.agent.test_agent import MB, push, release
from tests.support.agent_process import agent_process
from tests.support.commands import DOCKET, Commands, environment, registry, registry_process


def status(location: Path) -> tuple[int, dict[str, Any]]:
    """The exit code and the report; nothing when no agent answers."""
    argv = [*DOCKET, "-l", str(location), "agent", "status", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment())
    return done.returncode, json.loads(done.stdout or "{}")


def states(report: dict[str, Any]) -> dict[str, str]:
    """The state of each check."""
    return {check["name"]: check["state"] for check in report["checks"]}


def test_an_agent_that_reaches_everything_is_well(tmp_path: Path) -> None:
    """Exit code 0; what it holds is counted. Nobody has fetched from it: that is a warning."""
    with registry(tmp_path / "registry") as url:
        docket = Commands(url, tmp_path / "host")
        push(docket, tmp_path, release("1.0"), "app:1.0")
        with agent_process(url, tmp_path / "host"):
            docket("pull", "app:1.0", "--layers-only")
            code, report = status(tmp_path / "host")
            (host,) = docket("hosts")["hosts"]
    assert code == 0, report
    found = states(report)
    assert (found["registry"], found["tracker"], found["store"]) == ("ok", "ok", "ok")
    assert report["held"] == 1
    assert report["stored"] > 3 * MB
    assert host["disk_free"] > 0


def test_hosts_lists_how_much_an_agent_stores(tmp_path: Path) -> None:
    """The bytes of all blobs, as the agent counts them when it connects."""
    with registry(tmp_path / "registry") as url:
        docket = Commands(url, tmp_path / "host")
        push(docket, tmp_path, release("1.0"), "app:1.0")
        docket("pull", "app:1.0", "--layers-only")
        with agent_process(url, tmp_path / "host"):
            rows: list[dict[str, Any]] = []
            while not rows:
                rows = docket("hosts")["hosts"]
    assert rows[0]["disk_used"] > 3 * MB


def test_an_agent_without_its_registry_says_so(tmp_path: Path) -> None:
    """Exit code 1, and what to do."""
    with ExitStack() as stack:
        with registry(tmp_path / "registry") as url:
            stack.enter_context(agent_process(url, tmp_path / "host"))
        code, report = status(tmp_path / "host")
    assert code == 1
    assert states(report)["registry"] == "error"
    assert all(check["advice"] for check in report["checks"] if check["state"] != "ok")


def test_a_host_without_an_agent_has_no_status(tmp_path: Path) -> None:
    """Exit code 1, at once."""
    assert status(tmp_path / "host") == (1, {})


def test_an_agent_starts_without_its_registry(tmp_path: Path) -> None:
    """It serves, and connects when there is one."""
    with registry(tmp_path / "registry") as url:
        port = url.rpartition(":")[2]
    with agent_process(url, tmp_path / "host") as agent:
        assert agent.get("app/manifests/1.0").status >= 500
        with registry(tmp_path / "registry", port=int(port)) as again:
            docket = Commands(again, tmp_path / "host")
            push(docket, tmp_path, release("1.0"), "app:1.0")
            assert agent.pull("app", "1.0")["layers"]


def test_an_agent_ends_in_time_in_the_middle_of_a_pull(tmp_path: Path) -> None:
    """SIGTERM: it ends within 5 s, and the next one continues with what came."""
    with registry_process(tmp_path / "registry", "--max-upload", "1000000") as (url, _):
        docket = Commands(url, tmp_path / "host")
        push(docket, tmp_path, release("1.0", size=6 * MB), "app:1.0")
        with agent_process(url, tmp_path / "host") as agent:
            manifest = json.loads(agent.get("app/manifests/1.0").data)
            body = agent.stream(f"app/blobs/{manifest['layers'][0]['digest']}")
            assert body.read(1_500_000)
            began = time.monotonic()
            agent.process.terminate()
            assert agent.process.wait(20) == 0
            # counted from the signal; what the machine does beside it counts too
            assert time.monotonic() - began < 5 + 5
        moved = docket("pull", "app:1.0", "--layers-only")["payload"]
        assert sum(moved.values()) < sum(layer["size"] for layer in manifest["layers"]) - MB
