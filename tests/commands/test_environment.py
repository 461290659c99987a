"""Hosts with no home, other locales, odd paths and odd terminals."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from docket import config
from tests.support.commands import DOCKET, Commands, registry
from tests.support.images import release
from tests.support.requirements import need

Host = Callable[[str], Commands]

IMAGE = release("team/application:1.0-with-a-long-tag", [("base", 90_000), ("app", 30_000)])
ODD_NAMES = {
    "not ASCII": "größe 日本".encode(),
    "not UTF-8": b"a\xff\xfe\nb",
    "quotes": b"a'\"$(b)`[red]%s{} ",
}


def run(*arguments: object, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run docket with just the variables in *env*, and PATH."""
    argv = [*DOCKET, *map(str, arguments)]
    path = {"PATH": os.environ["PATH"]}
    return subprocess.run(argv, capture_output=True, text=True, env=path | env, check=False)


def push(host: Commands, folder: Path) -> None:
    """Push `IMAGE` from an archive."""
    host("push", IMAGE.name, "--archive", IMAGE.archive(folder / "app.tar"))


@pytest.mark.parametrize("command", [("gc", "--local"), ("registry", "-p", "0")])
def test_a_user_without_a_home_is_told_to_give_a_location(command: tuple[str, ...]) -> None:
    """Unknown user ids without HOME are usual in containers: one line, exit code 7."""
    need("unshare")
    argv = ["unshare", "-U", "--map-user=12345", *DOCKET, *command]
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 7, done.stderr
    assert done.stderr == (
        "docket: user id 12345 has no home folder; set HOME or give the store's location with -l\n"
    )


def test_a_user_without_a_home_needs_none_with_a_location(host: Host, tmp_path: Path) -> None:
    """-l is enough."""
    need("unshare")
    push(host("build"), tmp_path)
    argv = ["unshare", "-U", "--map-user=12345", *DOCKET, *host("a").options]
    done = subprocess.run(
        [*argv, "pull", IMAGE.name, "--layers-only"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_relative_folders_in_variables_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The XDG specification wants absolute paths; an empty HOME is none."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "data"):
        monkeypatch.setenv("XDG_DATA_HOME", value)
        assert config.data_location() == tmp_path / ".local/share/docket"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert config.data_location() == tmp_path / "data" / "docket"
    monkeypatch.delenv("XDG_DATA_HOME")
    for value in ("", "home"):
        monkeypatch.setenv("HOME", value)
        assert config.data_location().is_absolute()


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
def test_locations_may_have_any_bytes(tmp_path: Path, name: bytes) -> None:
    """A registry, a pull by BitTorrent and the checks of its store work in any folder."""
    folder = tmp_path / os.fsdecode(name)
    with registry(folder / "registry", wrapper=("env", "LC_ALL=C")) as url:
        shared = {"LC_ALL": "C", "DOCKET_HOST": url, "DOCKET_LOCATION": str(folder / "a")}

        def docket(*arguments: object) -> str:
            done = run(*arguments, env=shared)
            assert (done.returncode, "docket:" in done.stderr) == (0, False), done.stderr
            return done.stdout

        docket("push", IMAGE.name, "--archive", IMAGE.archive(tmp_path / "app.tar"))
        pulled = json.loads(docket("--json", "pull", IMAGE.name, "--layers-only"))
        assert {layer["source"] for layer in pulled["layers"]} == {"swarm"}
        docket("fsck", "--local", "--read-data")
        docket("gc", "--local")
        output = folder / "out.tar"
        docket("pull", IMAGE.name, "--output", output)
        assert output.stat().st_size > 120_000


def test_errors_show_odd_names_in_one_line(tmp_path: Path) -> None:
    """What can't be printed is escaped, whatever the locale."""
    missing = tmp_path / os.fsdecode("größe\n".encode() + b"\xff\x1b[31m.tar")
    for locale in ({"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C.UTF-8"}):
        done = run("push", "app:1.0", "--archive", missing, env=locale)
        assert done.returncode == 3
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.removesuffix("\n").isprintable()
        assert "ff\\x1b[31m.tar" in done.stderr


@pytest.mark.parametrize("option", ["-h", "-l"])
def test_an_empty_option_is_refused(option: str) -> None:
    """``-l "$DIR"`` without DIR would mean the working folder."""
    done = run(option, "", "images", env={})
    assert done.returncode == 2
    assert "the value is empty" in done.stderr


def test_an_empty_output_is_refused(host: Host) -> None:
    """``--output "$FILE"`` without FILE would load the image into the engine."""
    done = run(*host("a").options, "pull", "app:1.0", "--output", "", env={})
    assert done.returncode == 2
    assert "the value is empty" in done.stderr


def test_any_terminal_shows_the_result(host: Host, tmp_path: Path) -> None:
    """No terminal is too narrow or too simple; names and sizes aren't cut."""
    push(host("build"), tmp_path)
    for number, (columns, kind) in enumerate([(0, ""), (10, "xterm"), (200, "dumb")]):
        store = host(str(number)).options
        shown = on_terminal(columns, kind, *store, "pull", IMAGE.name, "--layers-only")
        assert f"pulled {IMAGE.name}" in shown
        assert "\x1b" not in shown, "such a terminal can't show bars"
        rows = on_terminal(columns, kind, *store, "images").splitlines()
        assert rows[1].split()[:2] == IMAGE.name.split(":")
    bars = on_terminal(80, "xterm", *host("bars").options, "pull", IMAGE.name, "--layers-only")
    assert "\x1b" in bars
    assert "100 %" in bars


def on_terminal(columns: int, kind: str, *arguments: object) -> str:
    """What docket shows on a terminal *columns* wide (0: not known), whose TERM is *kind*."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (25, columns))
    env = {"PATH": os.environ["PATH"], "TERM": kind}
    if not kind:
        del env["TERM"]
    with subprocess.Popen(
        [*DOCKET, *map(str, arguments)], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 65536):
                shown += block
        except OSError:  # Linux says EIO when the last writer is gone
            pass
        os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()
