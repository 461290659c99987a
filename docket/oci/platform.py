"""Platforms as docker, containerd, Go and ``uname -m`` spell them (OCI image 1.1 § index)."""

from __future__ import annotations

import platform as host_platform
import re
import sys
from dataclasses import dataclass

from docket.errors import InvalidManifest

_PART = re.compile(r"[A-Za-z0-9_.-]+\Z")
_ARM = re.compile(r"arm(?:32)?v([5-8])[a-z]*\Z")
_ARM64 = re.compile(r"arm64v([89](?:\.[0-9])?)\Z")
_VARIANT = re.compile(r"v?([0-9])(?:\.([0-9]))?\Z")

_ARCHITECTURES = {
    **dict.fromkeys(("x86_64", "x86-64", "x64"), "amd64"),
    **dict.fromkeys(("x86", "i386", "i486", "i586", "i686"), "386"),
    "aarch64": "arm64",
    **dict.fromkeys(("powerpc64le", "ppc64el"), "ppc64le"),
    "powerpc64": "ppc64",
    "mips64el": "mips64le",
    "mipsel": "mipsle",
    "loongarch64": "loong64",
}
# fmt: off
_GO_ARCHITECTURES = frozenset({
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle",
    "ppc64", "ppc64le", "riscv64", "s390x",
})
# fmt: on
_SYSTEMS = {"macos": "darwin", "osx": "darwin"}
_GO_SYSTEMS = frozenset({"darwin", "freebsd", "linux", "netbsd", "openbsd", "windows"})
# Debian's names for 32-bit ARM, as containerd reads them
_DEBIAN_ARM = {"armhf": "v7", "armel": "v6"}
# GOARCH says which end comes first; `uname -m` doesn't
_BI_ENDIAN = frozenset({"mips", "mips64"})
_OLDEST_ARM = 5
# Armv9.0 has all that Armv8.5 has
_ARM64_V9_IS_V8 = 5

UNKNOWN = "unknown"
"""The operating system and architecture that BuildKit gives to attestations."""


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and processor, spelled as it came; `str()` gives ``linux/arm64/v8``."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """The platform that *text* spells: ``os/architecture[/variant]``, or a part of it.

        What is missing is linux, or this machine's architecture. Raises `InvalidManifest`.
        """
        parts = text.split("/")
        if len(parts) > 3 or not all(_PART.match(part) for part in parts):
            raise InvalidManifest(f"{text[:80]!r} is not a platform such as linux/amd64")
        if len(parts) == 1:
            return cls._from_one_part(parts[0])
        if len(parts) == 2 and cls("linux", parts[0]).has_known_architecture:
            parts.insert(0, "linux")
        return cls(*parts)

    @classmethod
    def of_host(cls) -> Platform:
        """Linux on this machine's processor, as far as this process may use it."""
        is_32_bit = sys.maxsize < 1 << 32
        return cls.of_machine(host_platform.machine(), is_32_bit=is_32_bit)

    @classmethod
    def of_machine(
        cls, machine: str, *, is_32_bit: bool = False, byte_order: str = sys.byteorder
    ) -> Platform:
        """Linux on what ``uname -m`` calls *machine*; *is_32_bit*: its programs have 32 bits."""
        platform = cls("linux", machine).normalized
        if platform.architecture in _BI_ENDIAN and byte_order == "little":
            return cls("linux", f"{platform.architecture}le")
        # 32-bit systems run on 64-bit kernels, such as Raspberry Pi OS
        if is_32_bit and platform.architecture == "arm64":
            return cls("linux", "arm", "v8")
        return cls("linux", "386") if is_32_bit and platform.architecture == "amd64" else platform

    @classmethod
    def _from_one_part(cls, part: str) -> Platform:
        if _SYSTEMS.get(part.lower(), part.lower()) in _GO_SYSTEMS:
            host = cls.of_host()
            return cls(part, host.architecture, host.variant)
        platform = cls("linux", part)
        if not platform.has_known_architecture:
            raise InvalidManifest(f"{part[:80]!r} is not a platform such as linux/amd64")
        return platform

    @property
    def normalized(self) -> Platform:
        """The same platform as Go names it, without the variant that is meant anyway.

        ``linux/aarch64`` and ``linux/arm64/v8`` are ``linux/arm64``; ``linux/armhf`` and
        ``linux/arm`` are ``linux/arm/v7``.
        """
        system = self.os.lower()
        architecture, variant = self.architecture.lower(), self.variant.lower()
        if (debian := _DEBIAN_ARM.get(architecture)) is not None:
            architecture, variant = "arm", variant or debian
        elif match := _ARM.match(architecture):
            architecture, variant = "arm", variant or f"v{match[1]}"
        elif match := _ARM64.match(architecture):
            architecture, variant = "arm64", variant or f"v{match[1]}"
        architecture = _ARCHITECTURES.get(architecture, architecture)
        variant = _normalized_variant(architecture, variant)
        return Platform(_SYSTEMS.get(system, system), architecture, variant)

    @property
    def is_unknown(self) -> bool:
        """Whether this is what BuildKit gives to attestations."""
        return self.os == UNKNOWN

    @property
    def has_known_architecture(self) -> bool:
        """Whether the architecture is one of Go's, in any spelling."""
        return self.normalized.architecture in _GO_ARCHITECTURES

    def alternatives(self) -> tuple[Platform, ...]:
        """The normalized platforms whose images run on this one, best first.

        The order is that of containerd's ``platforms.Only``: newer variants before older ones,
        64 bits before 32.
        """
        platform = self.normalized
        levels = {"amd64": _amd64_levels, "arm": _arm_levels, "arm64": _arm64_levels}
        others = levels.get(platform.architecture, lambda _variant: ())(platform.variant)
        names = [(platform.architecture, platform.variant), *others]
        unique = dict.fromkeys(
            Platform(platform.os, *architecture).normalized for architecture in names
        )
        return tuple(unique)

    def serves(self, wanted: Platform) -> bool:
        """Whether an image for this platform runs where *wanted* is requested."""
        return self.normalized in wanted.alternatives()

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


_Names = tuple[tuple[str, str], ...]


def _normalized_variant(architecture: str, variant: str) -> str:
    if match := _VARIANT.match(variant):
        minor = f".{match[2]}" if match[2] and match[2] != "0" else ""
        variant = f"v{match[1]}{minor}"
    if architecture == "arm":
        return variant or "v7"
    implied = {"amd64": "v1", "arm64": "v8"}
    return "" if architecture == "386" or variant == implied.get(architecture) else variant


def _level(variant: str, default: int) -> tuple[int, int]:
    """Major and minor number of a variant such as ``v8.2``; (0, 0) when it is no such text."""
    if not variant:
        return default, 0
    match = _VARIANT.match(variant)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)


def _amd64_levels(variant: str) -> _Names:
    level, _ = _level(variant, 1)
    return (*(("amd64", f"v{older}") for older in range(level - 1, 0, -1)), ("386", ""))


def _arm_levels(variant: str) -> _Names:
    level, _ = _level(variant, 7)
    return tuple(("arm", f"v{older}") for older in range(level - 1, _OLDEST_ARM - 1, -1))


def _arm64_levels(variant: str) -> _Names:
    major, minor = _level(variant, 8)
    if major == 9:
        newer = [f"v9.{older}" for older in range(minor, -1, -1)]
        minor += _ARM64_V9_IS_V8
    elif major == 8:
        newer = []
    else:
        return ()
    names = [*newer, *(f"v8.{older}" for older in range(minor, -1, -1))]
    return (*(("arm64", name) for name in names), ("arm", "v8"), *_arm_levels("v8"))
