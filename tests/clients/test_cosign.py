"""cosign: signatures and attestations with local keys and no log, and what gc keeps of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.clients.conftest import ClientFailed, Tool, Tools
from tests.support.commands import Commands, registry
from tests.support.images import tiny_image

_UNLOGGED = ("--tlog-upload=false", "-y")
_OFFLINE = ("--use-signing-config=false",)
_BUNDLES = ("--new-bundle-format=true",)
_TAGS = ("--new-bundle-format=false",)

FORMS = [
    pytest.param("cosign3", (*_OFFLINE, *_BUNDLES), _BUNDLES, id="3-referrers"),
    pytest.param("cosign3", (*_OFFLINE, *_TAGS), _TAGS, id="3-tags"),
    pytest.param("cosign2", (), (), id="2-tags"),
]
"""A client, its options to sign, and those to verify: as referrers, or as tags of the digest."""


@pytest.fixture
def cosign(tool: Tools) -> Callable[[str], Tool]:
    """A cosign that has made a pair of keys."""

    def keyed(name: str) -> Tool:
        binary = tool(name, COSIGN_PASSWORD="")
        binary("generate-key-pair")
        (binary.folder / "sbom.json").write_text('{"spdxVersion": "SPDX-2.3"}')
        return binary

    return keyed


@pytest.mark.parametrize(("name", "signing", "verifying"), FORMS)
def test_a_signature_and_an_attestation_are_verified(
    cosign: Callable[[str], Tool],
    tool: Tools,
    pushed: str,
    name: str,
    signing: tuple[str, ...],
    verifying: tuple[str, ...],
) -> None:
    """What cosign pushed it finds again; an image that was not signed is refused."""
    run = cosign(name)
    crane = tool("crane")
    crane("mutate", pushed, "--label", "not=signed", "-t", f"{pushed}-other")
    subject = f"{pushed.rpartition(':')[0]}@{crane('digest', pushed)}"
    _sign(run, subject, signing)
    _attest(run, subject, signing)
    key = ("--key", "cosign.pub", "--insecure-ignore-tlog", *verifying)
    assert json.loads(run("verify", *key, pushed))
    assert run("verify-attestation", *key, "--type", "spdxjson", pushed)
    with pytest.raises(ClientFailed, match="no signatures found"):
        run("verify", *key, f"{pushed}-other")


@pytest.mark.parametrize(("name", "signing", "verifying"), FORMS)
def test_gc_keeps_releases_with_their_signatures(
    cosign: Callable[[str], Tool],
    tool: Tools,
    tmp_path: Path,
    name: str,
    signing: tuple[str, ...],
    verifying: tuple[str, ...],
) -> None:
    """`gc --keep 2` of three signed releases: two stay, signed; the oldest goes with all of it."""
    run, crane = cosign(name), tool("crane")
    # nothing is protected for having been pushed just now
    with registry(tmp_path / "registry", "--pin-time", "0") as url:
        builder = Commands(url, tmp_path / "builder")
        repository = f"{urlsplit(url).netloc}/team/app"
        subjects = []
        for number in (1, 2, 3):
            archive = tmp_path / f"{number}.tar"
            archive.write_bytes(tiny_image("release", number, name=f"app:{number}").docker_save())
            builder("push", f"team/app:{number}", "--archive", archive)
            subjects.append(f"{repository}@{crane('digest', f'{repository}:{number}')}")
            _sign(run, subjects[-1], signing)
            _attest(run, subjects[-1], signing)
        builder("gc", "--keep", "2", "--grace", "0")
        tags = crane("ls", repository).split()
        assert [tag for tag in tags if not tag.startswith("sha256-")] == ["2", "3"]
        gone = subjects[0].rpartition(":")[2]
        assert not [tag for tag in tags if gone in tag]
        key = ("--key", "cosign.pub", "--insecure-ignore-tlog", *verifying)
        for subject in subjects[1:]:
            assert json.loads(run("verify", *key, subject))
            assert run("verify-attestation", *key, "--type", "spdxjson", subject)
        with pytest.raises(ClientFailed):
            run("verify", *key, subjects[0])


def _sign(run: Tool, subject: str, options: tuple[str, ...]) -> None:
    run("sign", "--key", "cosign.key", *_UNLOGGED, *options, subject)


def _attest(run: Tool, subject: str, options: tuple[str, ...]) -> None:
    predicate = ("--type", "spdxjson", "--predicate", "sbom.json")
    run("attest", "--key", "cosign.key", *_UNLOGGED, *options, *predicate, subject)
