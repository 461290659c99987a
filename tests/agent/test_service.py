"""The agent as a service: its configuration file, SIGHUP, and what it says to systemd."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent_process import agent_process
from tests.support.commands import DOCKET, Commands, environment, registry

# systemd gives the process that it starts these variables, and a socket as descriptor 3
LIKE_SYSTEMD = """
import os, socket, sys
listening = socket.create_server(("127.0.0.1", 0))
if listening.fileno() != 3:
    os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "NOTIFY_SOCKET": sys.argv[1],
               "WATCHDOG_USEC": "200000"}
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    # Linux takes 107 bytes for the path of a socket: an abstract name has no path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiving:
        receiving.bind(f"\0docket-test-{tmp_path.name}-{os.getpid()}")
        receiving.settimeout(60)
        yield receiving


def messages_until(manager: socket.socket, wanted: str) -> set[str]:
    """All lines that come, until *wanted* does."""
    lines: set[str] = set()
    while wanted not in lines:
        lines |= set(manager.recv(4096).decode().splitlines())
    return lines


def test_under_systemd_the_agent_uses_its_socket_and_reports(
    tmp_path: Path, manager: socket.socket
) -> None:
    """Type=notify with a socket unit: READY, WATCHDOG, RELOADING, STOPPING."""
    address = "@" + manager.getsockname()[1:].decode()
    wrapper = [sys.executable, "-c", LIKE_SYSTEMD, address]
    with (
        registry(tmp_path / "registry") as url,
        agent_process(url, tmp_path / "host", "--listen", "127.0.0.1:1", wrapper=wrapper) as agent,
    ):
        messages_until(manager, "READY=1")
        assert agent.pool.request("GET", f"{agent.url}/v2/").status == 200
        assert not agent.url.endswith(":1")
        messages_until(manager, "WATCHDOG=1")
        agent.process.send_signal(signal.SIGHUP)
        reloaded = messages_until(manager, "RELOADING=1")
        assert any(line.startswith("MONOTONIC_USEC=") for line in reloaded)
        messages_until(manager, "READY=1")
        agent.process.terminate()
        messages_until(manager, "STOPPING=1")


def host_row(docket: Commands) -> dict[str, Any]:
    """The one host that is connected."""
    while True:
        for row in docket("hosts")["hosts"]:
            if row["connected"]:
                assert isinstance(row, dict)
                return row


def test_a_hangup_reads_the_file_again(tmp_path: Path) -> None:
    """Labels, zone and limits follow; the command line still wins; a wrong file changes nothing."""
    file = tmp_path / "agent.toml"
    file.write_text('zone = "east"\nname = "from-file"\nmax-upload = "5M"\n[label]\nrole = "web"\n')
    with registry(tmp_path / "registry") as url:
        docket = Commands(url, tmp_path / "host")
        options = ("--config", str(file), "--name", "from-line")
        with agent_process(url, tmp_path / "host", *options) as agent:
            row = host_row(docket)
            assert (row["name"], row["zone"], row["labels"]) == (
                "from-line",
                "east",
                {"role": "web"},
            )
            file.write_text('zone = "west"\nmax-upload = "7M@00:00-24:00"\nkeep = 3\n')
            agent.process.send_signal(signal.SIGHUP)
            while (row := host_row(docket))["zone"] != "west":
                pass
            assert (row["name"], row["labels"]) == ("from-line", {})
            file.write_text("zone = 7\nkeep = 0\n")
            agent.process.send_signal(signal.SIGHUP)
            while f"{file}, line 2: keep" not in agent.log.read_text():
                pass
            assert host_row(docket)["zone"] == "west"
        assert "upload 7000000" in agent.log.read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('zone = "a"\nzoone = "b"\n', "line 2: zoone is no option"),
        ("\n\nkeep = 0\n", "line 3: keep"),
        ('max-upload = "20 parsecs"\n', "line 1: max-upload"),
        ('label = "role=web"\n', "line 1: label needs a list"),
        ("keep = [1]\n", "line 1: keep needs one value"),
        ("zone = \n", "line 1"),
        ('max-space = "0%"\n', "line 1: max-space"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    """Exit code 2, before anything is started."""
    file = tmp_path / "agent.toml"
    file.write_text(content)
    argv = [*DOCKET, "-l", str(tmp_path / "host"), "agent", "--config", str(file)]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, env=environment(), timeout=60
    )
    assert done.returncode == 2
    assert str(file) in done.stderr
    assert message in done.stderr
    assert not (tmp_path / "host").exists()


def test_what_the_environment_gives_wins_over_the_file(tmp_path: Path) -> None:
    """As does what stands before the command's name; the file's location counts without."""
    file = tmp_path / "agent.toml"
    location = tmp_path / "from-file"
    file.write_text(f'zone = "file"\nlocation = "{location}"\nhost = "http://nowhere:1"\n')
    with registry(tmp_path / "registry") as url:
        argv = [*DOCKET, "-h", url, "agent", "--config", str(file), "--listen", "127.0.0.1:0"]
        variables = environment() | {"DOCKET_ZONE": "variable", "DOCKET_JSON": "1"}
        with subprocess.Popen(argv, stdout=subprocess.PIPE, env=variables) as process:
            try:
                assert process.stdout
                assert process.stdout.readline()
                row = host_row(Commands(url, tmp_path / "unused"))
            finally:
                process.terminate()
    assert row["zone"] == "variable"
    assert (location / "VERSION").exists()
