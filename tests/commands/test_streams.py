"""Standard streams that are closed, full or not read: one line, a documented code, nothing lost."""

from __future__ import annotations

import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import DOCKET, Commands, environment
from tests.support.images import release
from tests.support.processes import answers, end, free_port, wait_until

Host = Callable[[str], Commands]

IMAGE = release("app:1.0", [("base", 90_000)])


def shell(host: Commands, command: str, redirections: str) -> subprocess.CompletedProcess[str]:
    """Run *command* of docket with its streams redirected by a shell."""
    script = f'"$@" {command} {redirections}'
    argv = ["bash", "-c", f"set -o pipefail; {script}", "bash", *DOCKET, *host.options]
    return subprocess.run(argv, capture_output=True, text=True, env=host.environment, check=False)


def push(host: Commands, folder: Path) -> None:
    """Push `IMAGE` from an archive."""
    host("push", IMAGE.name, "--archive", IMAGE.archive(folder / "app.tar"))


def test_a_result_that_cannot_be_written_is_an_error(host: Host, tmp_path: Path) -> None:
    """A script that needs a result never gets exit code 0 without it."""
    push(host("build"), tmp_path)
    for command, redirection, reason in (
        ("images", ">&-", "Bad file descriptor"),
        ("images", ">/dev/full", "No space left on device"),
        ("--json images", ">/dev/full", "No space left on device"),
        ("version", ">&-", "Bad file descriptor"),
        ("plan app:1.0 --layers-only", ">/dev/full", "No space left on device"),
        ("completion bash", ">/dev/full", "No space left on device"),
    ):
        done = shell(host("build"), command, redirection)
        line = f"docket: can't write the result to standard output: {reason}\n"
        assert (done.returncode, done.stderr) == (1, line)


def test_an_output_that_cannot_be_written_is_found_before_the_pull(
    host: Host, tmp_path: Path
) -> None:
    """``--output -`` with standard output closed fetches nothing; so does ``--archive -``."""
    push(host("build"), tmp_path)
    done = shell(host("a"), "pull app:1.0 --output -", ">&-")
    assert (done.returncode, done.stderr) == (1, "docket: standard output is closed\n")
    assert not host("a").location.exists()
    done = shell(host("a"), "push app:1.1 --archive -", "<&-")
    assert (done.returncode, done.stderr) == (1, "docket: standard input is closed\n")


def test_progress_that_cannot_be_shown_is_left_out(host: Host, tmp_path: Path) -> None:
    """Standard error is for people; a transfer doesn't fail with it, and codes stay right."""
    push(host("build"), tmp_path)
    for number, redirection in enumerate(("2>&-", "2>/dev/full")):
        puller = host(str(number))
        done = shell(puller, "pull app:1.0 --layers-only", redirection)
        assert done.returncode == 0
        assert done.stdout.startswith("pulled app:1.0")
        assert shell(puller, "pull none:1.0 --layers-only", redirection).returncode == 3
        assert shell(puller, "pull --no-such-option", redirection).returncode == 2


def test_no_file_of_the_store_takes_the_number_of_a_closed_stream(
    host: Host, tmp_path: Path
) -> None:
    """With all three closed, what is printed would else land in the index or in a socket."""
    push(host("build"), tmp_path)
    done = shell(host("a"), "pull app:1.0 --layers-only", "<&- >&- 2>&-")
    assert done.returncode == 1
    assert host("a")("fsck", "--local", "--read-data")["findings"] == []
    assert host("a")("pull", IMAGE.name, "--layers-only")["payload"] == {"swarm": 0, "http": 0}


def test_a_reader_that_stops_reading_ends_a_command_quietly(host: Host, tmp_path: Path) -> None:
    """``docket images | head -1`` prints no error; the exit code is that of SIGPIPE."""
    push(host("build"), tmp_path)
    for command in ("images", "--help", "pull --help", "pull app:1.0 --output -"):
        done = shell(host("a"), f"--quiet {command}", "| exec 0<&-")
        assert (done.returncode, done.stderr) == (141, ""), command


@pytest.mark.parametrize("redirections", ["<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_a_registry_serves_without_standard_streams(tmp_path: Path, redirections: str) -> None:
    """A supervisor may close them, and the disk of a log may be full."""
    port = free_port()
    options = f"--bind 127.0.0.1 -p {port} -l {tmp_path}/registry"
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" registry {options} {redirections}', "bash", *DOCKET],
        env=environment(),
    )
    try:
        log = tmp_path / "none"
        wait_until(lambda: answers("127.0.0.1", port), process=process, log=log)
        url = f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(f"{url}/healthz", timeout=30) as response:
            assert response.status == 200
        push(Commands(url, tmp_path / "build"), tmp_path)
    finally:
        end(process)
    assert process.returncode == 0
