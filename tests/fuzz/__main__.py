"""Fuzz what docket reads from outside.

python -m tests.fuzz TARGET --seconds 60    guided by coverage (pip install -e '.[fuzz]')
python -m tests.fuzz TARGET --inputs 300    the same inputs every time
python -m tests.fuzz TARGET --input FILE    one input, such as one that was found

A finding ends the command with another code than 0: an error that is not docket's own or that a
property names, an input that takes more than 5 s, more than 256 MB of resident memory, or a write
outside the folder that is docket's. The input is kept below build/fuzz/TARGET/.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path

NAMES = (
    "archive",
    "members",
    "stream",
    "manifest",
    "name",
    "announce",
    "range",
    "torrent",
    "call",
)

_KEPT = Path(__file__).parents[2] / "build" / "fuzz"


def main() -> None:
    """Run one target."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", choices=NAMES)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--seconds", type=int, help="search for so long, guided by coverage")
    group.add_argument("--inputs", type=int, help="try so many inputs, the same every time")
    group.add_argument("--input", type=Path, help="try the input in this file")
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    kept = _KEPT / options.target
    kept.mkdir(parents=True, exist_ok=True)
    if options.seconds is not None:
        _search(options.target, options.seconds, kept)
    else:
        _try_all(options.target, options.inputs or 0, options.input, kept)


def _try_all(name: str, count: int, only: Path | None, kept: Path) -> None:
    from tests.fuzz.guard import INPUT_SECONDS, PEAK_MEGABYTES, peak_megabytes, within_seconds
    from tests.fuzz.mutate import mutated
    from tests.fuzz.targets import TARGETS, watched

    target = TARGETS[name]
    slowest, tried = 0.0, 0
    inputs = [only.read_bytes()] if only else mutated(target.seeds(), target.words, count=count)
    with tempfile.TemporaryDirectory() as folder, watched(target, Path(folder)) as check:
        for content in inputs:
            (kept / "last").write_bytes(content)
            began = time.monotonic()
            with within_seconds(INPUT_SECONDS):
                check(content)
            slowest = max(slowest, time.monotonic() - began)
            tried += 1
    (kept / "last").unlink(missing_ok=True)  # two may run at once
    peak = peak_megabytes()
    report = {"target": name, "inputs": tried, "slowest": round(slowest, 3), "peak_mb": peak}
    sys.stdout.write(f"{json.dumps(report)}\n")
    if peak > PEAK_MEGABYTES:
        sys.exit(f"{name} took {peak} MB of memory")


def _search(name: str, seconds: int, kept: Path) -> None:
    """Ends the process, as libFuzzer does."""
    if importlib.util.find_spec("atheris") is None:
        sys.exit(
            "python -m tests.fuzz --seconds needs atheris: pip install -e '.[fuzz]' "
            "(Linux on x86-64); --inputs works without it"
        )
    import atheris

    atheris.enabled_hooks.add("RegEx")
    atheris.enabled_hooks.add("str")
    with atheris.instrument_imports(include=["docket", "torf", "flatbencode"]):
        from tests.fuzz.targets import TARGETS, watched
    from tests.fuzz.guard import INPUT_SECONDS, PEAK_MEGABYTES

    target = TARGETS[name]
    corpus = kept / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = kept / "words"
    words.write_text("".join(f'"{_quoted(word)}"\n' for word in target.words))
    argv = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-timeout={INPUT_SECONDS}",
        f"-rss_limit_mb={PEAK_MEGABYTES}",
        "-max_len=65536",
        f"-dict={words}",
        f"-artifact_prefix={kept}/",
        "-print_final_stats=1",
        str(corpus),
    ]
    with tempfile.TemporaryDirectory() as folder, watched(target, Path(folder)) as check:
        atheris.Setup(argv, check)
        atheris.Fuzz()


def _quoted(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()
