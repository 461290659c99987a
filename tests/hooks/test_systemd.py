"""The agent's units are ones that systemd takes, hardened, and start the right command."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from docket.hooks.plan import AgentAddress, Paths
from docket.hooks.systemd import plan_systemd
from tests.hooks.conftest import AGENT, PATHS
from tests.support.requirements import need

HOME = Path("/home/ann")
USER = Paths.of_user(config=HOME / ".config", state=HOME / ".state", store=HOME / "store")


def units(
    paths: Paths, folder: Path, command: list[str], agent: AgentAddress = AGENT
) -> list[Path]:
    """The planned units, written to *folder*."""
    written = []
    for change in plan_systemd(paths, agent, command).changes:
        written.append(folder / change.path.name)
        written[-1].write_bytes(change.content)
    return written


@pytest.mark.parametrize("paths", [PATHS, USER])
@pytest.mark.parametrize("agent", [AGENT, AgentAddress("::1", 5000)])
def test_systemd_takes_the_units(paths: Paths, agent: AgentAddress, tmp_path: Path) -> None:
    """systemd-analyze verify has nothing to say about them."""
    need("systemd-analyze")
    written = units(paths, tmp_path, [str(shutil.which("true"))], agent)
    argv = ["systemd-analyze", "--man=no", "--user" if paths.is_user else "--system", "verify"]
    done = subprocess.run([*argv, *written], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "docket-agent" in line]
    assert complaints == []


def test_the_service_is_hardened(tmp_path: Path) -> None:
    """systemd's own rating: below 5 is OK, an unhardened service has 9.6."""
    need("systemd-analyze")
    units(PATHS, tmp_path, [str(shutil.which("true"))])
    argv = ["systemd-analyze", "security", "--offline=yes", "--no-pager"]
    done = subprocess.run(
        [*argv, tmp_path / "docket-agent.service"], capture_output=True, text=True, check=False
    )
    rating = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert rating, done.stderr
    assert float(rating[1]) < 5


def test_the_service_starts_the_agent(tmp_path: Path) -> None:
    """The command's words are quoted as systemd reads them; the service waits for its socket."""
    service, socket = units(PATHS, tmp_path, ["/opt/my docket/docket", "agent", "--host", "a%$b"])
    text = service.read_text()
    assert (
        'ExecStart="/opt/my docket/docket" agent --host a%%$$b '
        "--listen 127.0.0.1:5000 --location /var/lib/docket/agent\n"
    ) in text
    assert "Type=notify\n" in text
    assert "Requires=docket-agent.socket\n" in text
    assert "ListenStream=127.0.0.1:5000\n" in socket.read_text()


def test_var_stays_one_mount(tmp_path: Path) -> None:
    """Hard links from an engine's files to the store need one mount: link(2) refuses two."""
    service, _ = units(PATHS, tmp_path, ["/bin/docket"])
    text = service.read_text()
    assert "ProtectSystem=full\n" in text
    assert not re.search(r"^(ReadWrite|Bind|ReadOnly)Paths|^DynamicUser", text, re.MULTILINE)
