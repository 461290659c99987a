"""Platforms: every spelling of docker, containerd, Go and uname, and what runs on what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docket.errors import InvalidManifest
from docket.oci.platform import Platform

SPELLINGS = {
    "linux/amd64": "linux/amd64 linux/x86_64 linux/x86-64 linux/amd64/v1 Linux/AMD64 amd64 x86_64",
    "linux/amd64/v3": "linux/amd64/v3 linux/x86_64/v3 linux/amd64/3",
    "linux/386": "linux/386 linux/i386 linux/i486 linux/i586 linux/i686 386 i686 linux/x86",
    "linux/arm64": "linux/arm64 linux/aarch64 linux/arm64/v8 linux/arm64/8 linux/aarch64/v8"
    " linux/arm64v8 arm64 aarch64 linux/arm64/v8.0 arm64/v8",
    "linux/arm64/v9": "linux/arm64/v9 linux/arm64v9 linux/arm64/9",
    "linux/arm/v7": "linux/arm linux/arm/v7 linux/arm/7 linux/armhf linux/armv7l linux/armv7"
    " linux/arm32v7 arm armhf arm/v7",
    "linux/arm/v6": "linux/arm/v6 linux/armel linux/armv6l linux/arm32v6 linux/arm/6 arm/v6",
    "linux/arm/v5": "linux/arm/v5 linux/armv5tel linux/arm32v5 linux/armv5tejl",
    "linux/arm/v8": "linux/arm/v8 linux/armv8l linux/armv8b",
    "linux/riscv64": "linux/riscv64 riscv64",
    "linux/ppc64le": "linux/ppc64le linux/powerpc64le linux/ppc64el",
    "linux/s390x": "linux/s390x s390x",
    "linux/loong64": "linux/loong64 linux/loongarch64",
    "linux/mips64le": "linux/mips64le linux/mips64el",
    "darwin/arm64": "darwin/arm64 macos/arm64 macos/aarch64 macOS/arm64/v8",
    "windows/amd64": "windows/amd64 windows/x86_64",
}


@pytest.mark.parametrize("normal", SPELLINGS)
def test_all_spellings_of_a_platform(normal: str) -> None:
    """containerd platforms § Normalize: tools spell a platform in many ways; each finds the image.

    Both sides are read alike: what is asked for, and what an index says.
    """
    for text in SPELLINGS[normal].split():
        platform = Platform.parse(text)
        assert str(platform.normalized) == normal, text
        assert platform.serves(Platform.parse(normal))
        assert Platform.parse(normal).serves(platform)


MACHINES = {
    "x86_64": "linux/amd64",
    "amd64": "linux/amd64",
    "i386": "linux/386",
    "i686": "linux/386",
    "aarch64": "linux/arm64",
    "arm64": "linux/arm64",
    "armv5tel": "linux/arm/v5",
    "armv6l": "linux/arm/v6",
    "armv7l": "linux/arm/v7",
    "armv8l": "linux/arm/v8",
    "riscv64": "linux/riscv64",
    "ppc64le": "linux/ppc64le",
    "s390x": "linux/s390x",
    "loongarch64": "linux/loong64",
    "mips64": "linux/mips64le",
    "mips": "linux/mipsle",
}


@pytest.mark.parametrize("machine", MACHINES)
def test_a_host_by_its_machine(machine: str) -> None:
    """Every ``uname -m`` that containers run on is a platform of Go's."""
    platform = Platform.of_machine(machine, byte_order="little")
    assert str(platform) == MACHINES[machine]


def test_programs_of_32_bits_on_a_kernel_of_64() -> None:
    """Raspberry Pi OS: ``uname -m`` names the kernel; images run where docket does."""
    assert str(Platform.of_machine("aarch64", is_32_bit=True)) == "linux/arm/v8"
    assert str(Platform.of_machine("x86_64", is_32_bit=True)) == "linux/386"
    assert str(Platform.of_machine("mips64", byte_order="big")) == "linux/mips64"


ORDERS = {
    "linux/arm/v7": "linux/arm/v7 linux/arm/v6 linux/arm/v5",
    "linux/arm": "linux/arm/v7 linux/arm/v6 linux/arm/v5",
    "linux/arm/v5": "linux/arm/v5",
    "linux/amd64": "linux/amd64 linux/386",
    "linux/amd64/v3": "linux/amd64/v3 linux/amd64/v2 linux/amd64 linux/386",
    "linux/arm64": "linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5",
    "linux/arm64/v8.1": "linux/arm64/v8.1 linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6"
    " linux/arm/v5",
    "linux/s390x": "linux/s390x",
    "windows/amd64": "windows/amd64 windows/386",
}


@pytest.mark.parametrize("wanted", ORDERS)
def test_what_runs_on_a_platform_best_first(wanted: str) -> None:
    """containerd § platforms.Only: older variants run too, after newer ones, and 32 bits last."""
    assert [str(platform) for platform in Platform.parse(wanted).alternatives()] == ORDERS[
        wanted
    ].split()


def test_armv9_runs_what_armv8_5_runs() -> None:
    """containerd § platforms.Only: v9.0 has the instructions of v8.5, not those of v8.6."""
    wanted = Platform.parse("linux/arm64/v9")
    assert Platform.parse("linux/arm64/v8.5").serves(wanted)
    assert Platform.parse("linux/arm64").serves(wanted)
    assert not Platform.parse("linux/arm64/v8.6").serves(wanted)
    assert not Platform.parse("linux/arm64/v9.1").serves(wanted)


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        ("linux/arm/v7", "linux/arm/v6"),
        ("linux/amd64/v2", "linux/amd64"),
        ("linux/amd64", "linux/386"),
        ("linux/amd64", "windows/amd64"),
        ("linux/arm64", "linux/arm/v7"),
        ("linux/arm64/v9", "linux/arm64"),
    ],
)
def test_what_does_not_run(image: str, wanted: str) -> None:
    """An image for a newer or another processor is never chosen."""
    assert not Platform.parse(image).serves(Platform.parse(wanted))


@given(st.text(max_size=40))
def test_any_text_is_a_platform_or_refused(text: str) -> None:
    """Bad input: every text is a platform with alternatives that begin with it, or an error."""
    try:
        platform = Platform.parse(text)
    except InvalidManifest:
        return
    assert platform.alternatives()[0] == platform.normalized
    assert platform.normalized.normalized == platform.normalized


@pytest.mark.parametrize(
    "text",
    [
        "",
        "linux/",
        "/amd64",
        "a/b/c/d",
        "nosuch",
        "linux/amd64 ",
        "linux/\u0663",
        "linux/arm/v\u0667",
    ],
)
def test_bad_platforms(text: str) -> None:
    """A platform is ``os/architecture[/variant]`` in ASCII."""
    with pytest.raises(InvalidManifest):
        Platform.parse(text)
