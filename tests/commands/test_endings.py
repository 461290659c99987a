"""How commands end: by signals, and by errors that docket doesn't expect."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from docket.store import Store
from tests.support.commands import DOCKET, environment

_FAILING = """
from docket import cli
@cli.cli.command("fail")
def fail():
    raise {error}
cli.main()
"""


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A command that waits for a store which the test holds."""
    with closing(Store(tmp_path / "a", owner="docket test")):
        argv = [*DOCKET, "-l", str(tmp_path / "a"), "gc", "--local"]
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
        ) as process:
            assert process.stderr
            assert "waiting for docket test" in process.stderr.readline()
            yield process
            process.kill()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_command_in_one_line(waiting: subprocess.Popen[str], name: str) -> None:
    """Ctrl-C, a supervisor and a lost terminal end a command alike: 128 + the signal's number."""
    number = signal.Signals[name]
    waiting.send_signal(number)
    _, stderr = waiting.communicate(timeout=60)
    assert (waiting.returncode, stderr) == (128 + number, "docket: interrupted\n")


def test_nohup_keeps_a_command_running(tmp_path: Path) -> None:
    """A signal that was ignored when docket was started stays ignored."""
    script = f"""
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv({DOCKET[0]!r}, {[*DOCKET, "registry", "--bind", "127.0.0.1", "-p", "0"]!r}
    + ["--json", "-l", {str(tmp_path / "registry")!r}])
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout
        assert "url" in process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.terminate()
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("KeyError('x')", "docket: KeyError: 'x' (a bug; DOCKET_DEBUG=1 shows where)"),
        ("RuntimeError('a\\nb')", "docket: RuntimeError: a b (a bug; DOCKET_DEBUG=1 shows where)"),
        ("AssertionError", "docket: AssertionError: AssertionError (a bug; DOCKET_DEBUG=1 shows"),
        ("MemoryError", "docket: not enough memory"),
        ("OSError(5, 'Input/output error', '/x\\ny')", "docket: Input/output error: /x\\ny"),
        ("OSError('odd')", "docket: OSError: odd\n"),
        ("BrokenPipeError(32, 'Broken pipe')", "docket: Broken pipe"),
        ("EOFError", "docket: EOFError: EOFError (a bug"),
    ],
)
def test_an_unexpected_error_is_one_line(error: str, line: str) -> None:
    """No command ends in a traceback, but DOCKET_DEBUG=1 shows it."""
    done = fail_with(error)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith(line)


def test_a_traceback_can_be_had() -> None:
    """With DOCKET_DEBUG=1 it comes before the line."""
    done = fail_with("KeyError('x')", DOCKET_DEBUG="1")
    assert done.stderr.startswith("Traceback")
    assert done.stderr.splitlines()[-1].startswith("docket: KeyError: 'x'")


def fail_with(error: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command that raises *error*."""
    argv = [sys.executable, "-c", _FAILING.format(error=error), "fail"]
    env = environment() | env
    return subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
