"""The commands, as users and scripts meet them: results, errors, exit codes."""

from __future__ import annotations

import json
import socket
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from docket.oci.digest import Digest
from tests.support.commands import DOCKET, CommandFailed, Commands, registry
from tests.support.images import TinyImage, release
from tests.support.requirements import need

Host = Callable[[str], Commands]

FIRST = release("team/app:1.0", [("base", 600_000), ("app-1", 90_000)])
SECOND = release("team/app:1.1", [("base", 600_000), ("app-2", 90_000)])


def pushed(host: Commands, image: TinyImage, folder: Path) -> dict[str, object]:
    """Push *image* from an archive."""
    archive = image.archive(folder / f"{image.name.replace('/', '-')}.tar")
    return host("push", image.name, "--archive", archive)


def failure(host: Commands, *arguments: object) -> CommandFailed:
    """How a command fails: one line, without a traceback."""
    with pytest.raises(CommandFailed) as caught:
        host(*arguments)
    assert caught.value.message.startswith("docket: ")
    assert len(caught.value.message.splitlines()) == 1, caught.value.message
    return caught.value


def test_second_push_of_the_same_image_uploads_nothing(host: Host, tmp_path: Path) -> None:
    """An identical push uploads 0 layer bytes, says so, and gives the same digest."""
    first = pushed(host("build"), FIRST, tmp_path)
    again = pushed(host("build"), FIRST, tmp_path)
    assert first["uploaded"]
    assert again["uploaded"] == 0
    assert again["digest"] == first["digest"]
    archive = tmp_path / "team-app:1.0.tar"
    words = host("build").plain("push", FIRST.name, "--archive", archive).decode()
    assert "0 B uploaded" in words


def test_release_shares_the_base_layer(host: Host, tmp_path: Path) -> None:
    """Of a second release only the changed layer is uploaded, planned and fetched."""
    pushed(host("build"), FIRST, tmp_path)
    second = pushed(host("build"), SECOND, tmp_path)
    sizes = [layer["size"] for layer in second["layers"]]  # type: ignore[attr-defined]
    assert second["uploaded"] == sizes[1]
    assert host("a")("pull", FIRST.name, "--layers-only")["payload"]["http"] == 0
    assert host("a")("plan", SECOND.name, "--layers-only")["to_move"] == sizes[1]
    pulled = host("a")("pull", SECOND.name, "--layers-only")
    assert [layer["source"] for layer in pulled["layers"]] == ["held", "swarm"]
    assert pulled["payload"]["swarm"] <= 1.02 * sizes[1] + 64 * 1024
    shown = host("a")("images")["images"]
    assert [(row["tag"], row["layers"]) for row in shown] == [("1.0", 2), ("1.1", 2)]
    assert all(row["shared"] >= sizes[0] for row in shown)


def test_output_is_the_image_that_was_pushed(host: Host, tmp_path: Path) -> None:
    """--output writes every layer byte for byte; standard output works too, and skopeo reads it."""
    need("skopeo")
    pushed(host("build"), FIRST, tmp_path)
    output = tmp_path / "out.tar"
    host("a")("pull", FIRST.name, "--output", output)
    with tarfile.open(output) as tar:
        for layer in FIRST.layers:
            member = tar.extractfile(Digest.of(layer).layout_path)
            assert member
            assert member.read() == layer
    assert host("a").plain("pull", FIRST.name, "--output", "-") == output.read_bytes()
    for form in ("docker-archive", "oci-archive"):
        shown = subprocess.run(
            ["skopeo", "inspect", "--config", f"{form}:{output}"], capture_output=True, check=True
        )
        assert json.loads(shown.stdout)["rootfs"]["diff_ids"] == [
            str(Digest.of(layer)) for layer in FIRST.layers
        ]


def test_archive_comes_by_standard_input(host: Host, tmp_path: Path) -> None:
    """``--archive -`` reads a pipe from front to end."""
    archive = FIRST.archive(tmp_path / "app.tar")
    with archive.open("rb") as file:
        answer = host("build").plain("--json", "push", FIRST.name, "--archive", "-", stdin=file)
    assert json.loads(answer)["uploaded"]


def test_rm_and_gc_free_what_no_other_image_needs(host: Host, tmp_path: Path) -> None:
    """A dry run tells the truth; what was just pushed is still pinned; nothing shared goes."""
    pushed(host("build"), FIRST, tmp_path)
    pushed(host("build"), SECOND, tmp_path)
    assert host("build")("rm", FIRST.name) == {"removed": FIRST.name}
    report = host("build")("gc", "--dry-run", "--grace", "0")
    assert report["dry_run"]
    assert (report["freed"], report["blobs"]) == (0, 0)
    assert report["pinned_manifests"] == 1
    assert "kept 1 images without a tag" in host("build").plain("gc").decode()
    assert host("a")("pull", SECOND.name, "--layers-only")["payload"]["swarm"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("pull", "nothing:1.0", "--layers-only"), 3, "nothing:1.0 is not here"),
        (("plan", "nothing:1.0", "--layers-only"), 3, "nothing:1.0 is not here"),
        (("inspect", "nothing:1.0"), 3, "nothing:1.0 is not here"),
        (("rm", "nothing:1.0"), 3, "nothing:1.0 is not here"),
        (("push", "app:1.0", "--archive", "/nowhere.tar"), 3, "/nowhere.tar"),
        (("pull", "Bad Name:1.0", "--layers-only"), 4, "is not an image name"),
        (("pull", "host:5000/app:1.0", "--layers-only"), 4, "-h and -p"),
        (("push", "app:1.0", "--archive", __file__), 4, "no tar archive; docker save makes one"),
    ],
)
def test_errors_are_one_line_with_a_documented_code(
    host: Host, arguments: tuple[str, ...], code: int, words: str
) -> None:
    """What is unknown or broken is one clear line, and the code that docs/cli.md names."""
    error = failure(host("a"), *arguments)
    assert error.code == code
    assert words in error.message


def test_registry_that_is_down_is_named(tmp_path: Path) -> None:
    """Without a registry every command says where it looked, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    nowhere = Commands(f"http://127.0.0.1:{port}", tmp_path)
    for arguments in (("images",), ("pull", "app:1.0", "--layers-only"), ("gc",)):
        error = failure(nowhere, *arguments)
        assert error.code == 5
        assert f"127.0.0.1:{port}" in error.message
        assert "docket registry" in error.message


def test_engine_that_is_down_is_named(registry_url: str, tmp_path: Path) -> None:
    """Without an engine push and pull say which socket, and what works without one."""
    host = Commands(registry_url, tmp_path / "a", engine=f"unix://{tmp_path}/none.sock")
    for command in ("push", "pull"):
        error = failure(host, command, "app:1.0")
        assert error.code == 6
        assert "none.sock" in error.message
        assert "--layers-only" in error.message


def test_second_registry_on_a_store_says_who_has_it(registry_url: str, tmp_path: Path) -> None:
    """One process owns a store."""
    argv = [*DOCKET, "registry", "--bind", "127.0.0.1", "-p", "0", "-l", str(tmp_path / "registry")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert "docket registry" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_advertised_host_is_handed_out_by_address(tmp_path: Path) -> None:
    """--advertise takes a name; an unknown one is refused at the start, not at every announce."""
    argv = [*DOCKET, "registry", "--bind", "127.0.0.1", "-p", "0", "-l", str(tmp_path / "r")]
    done = subprocess.run(
        [*argv, "--advertise", "no.such.host.invalid"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert "no.such.host.invalid" in done.stderr
    with registry(tmp_path / "r", "--advertise", "localhost") as url:
        host = Commands(url, tmp_path / "a")
        pushed(host, FIRST, tmp_path)
        pulled = host("pull", FIRST.name, "--layers-only")
        assert {layer["source"] for layer in pulled["layers"]} == {"swarm"}


def test_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    """A registry that can't listen ends with a reason."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        argv = [*DOCKET, "registry", "--bind", "127.0.0.1", "-p", port, "-l", str(tmp_path / "r")]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("docket: Address already in use")
    assert port in line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    """Each shell gets a script that asks docket for completions."""
    done = subprocess.run([*DOCKET, "completion", shell], capture_output=True, check=True)
    assert b"_DOCKET_COMPLETE" in done.stdout


def test_version_names_the_libraries(registry_url: str, tmp_path: Path) -> None:
    """Bug reports need the versions of what moves the bytes."""
    versions = Commands(registry_url, tmp_path)("version")
    assert {"docket", "python", "libtorrent", "lmdb", "zstandard"} <= versions.keys()
