"""Edits of TOML text change one value and nothing else, or are refused."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docket.hooks.toml_text import (
    NoSafeEdit,
    block,
    table,
    value,
    with_hosts_first,
    with_value,
    without_blocks,
)

AGENT = '[host."http://127.0.0.1:5000"]\n  capabilities = ["pull"]\n'
IMAGES = ("plugins", "io.containerd.cri.v1.images", "registry")


@given(st.text())
def test_any_string_reads_back(text: str) -> None:
    """A string without control characters is written so that TOML reads the same string."""
    try:
        written = value(text)
    except NoSafeEdit:
        assert any(ord(character) < 32 or ord(character) == 127 for character in text)
        return
    assert tomllib.loads(f"x = {written}") == {"x": text}


@given(
    st.dictionaries(st.text("abc.-\"' é", min_size=1), st.booleans() | st.integers(), min_size=1)
)
def test_any_table_reads_back(rows: dict[str, bool | int]) -> None:
    """Keys are quoted where they have to be."""
    assert tomllib.loads(table("[t]", rows)) == {"t": rows}


@pytest.mark.parametrize(
    "before",
    [
        "",
        "# only a comment",
        'server = "https://r.example"\n',
        '# mine\n[host."https://m"]  # first\n  ca = "x.crt"\n\n[host."https://n"]\n',
        'client = [\n  ["a.cert", "a.key"],\n  ["b.cert", "b.key"],\n]\n[host."https://m"]\n',
        'note = """\n[host."http://fake"]\n"""\n[host."https://m".header]\n  x = "1"\n',
        "[host.'https://m']\r\n  skip_verify = true\r\n",
    ],
)
def test_our_host_comes_first_and_all_else_stays(before: str) -> None:
    """Every line that was there is still there, in order; ours is the first host."""
    after = with_hosts_first(before, block("why", AGENT))
    assert next(iter(tomllib.loads(after)["host"])) == "http://127.0.0.1:5000"
    hosts = tomllib.loads(before).get("host", {})
    assert tomllib.loads(after)["host"] == {**tomllib.loads(AGENT)["host"], **hosts}
    assert without_blocks(after).rstrip("\n") == before.rstrip("\n")


@pytest.mark.parametrize(
    "before",
    [
        'host = { "https://m" = {} }\n',  # a table in one line can't be added to
        'host."https://m".ca = "x"\n[other]\n',  # a host before all tables stays the first
        "not TOML",
        "[" * 100_000,
    ],
)
def test_what_cannot_be_edited_safely_is_refused(before: str) -> None:
    """Nothing is guessed: the edit has to parse to what is wanted."""
    with pytest.raises(NoSafeEdit):
        with_hosts_first(before, AGENT)


@pytest.mark.parametrize(
    "before",
    [
        "version = 3\n",
        "version = 3",
        "[plugins]\n  [plugins.'io.containerd.cri.v1.images'.registry]\n    config_path = ''\n",
        '[plugins."io.containerd.cri.v1.images".registry]  # mine\n\n[other]\n  y = "x"\n',
        '[plugins."io.containerd.cri.v1.images"]\n  registry.config_path = ""\n',
        'text = """\n[plugins."io.containerd.cri.v1.images".registry]\n"""\n',
    ],
)
def test_a_value_is_set_and_all_else_stays(before: str) -> None:
    """The value is replaced where it stands, or added below its table; or the edit is refused."""
    expected = tomllib.loads(before)
    registry = expected
    for part in IMAGES:
        registry = registry.setdefault(part, {})
    registry["config_path"] = "/certs"
    try:
        after = with_value(before, IMAGES, "config_path", "/certs", reason="why")
    except NoSafeEdit:
        assert "registry.config_path" in before
        return
    assert tomllib.loads(after) == expected
    remaining = iter(after.splitlines())
    kept = [line for line in before.splitlines() if "config_path = ''" not in line]
    assert all(line in remaining for line in kept)
