"""umoci: what docket writes as an archive is an OCI layout, and docket takes one from umoci."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable

from tests.clients.conftest import Tool, Tools
from tests.support.commands import Commands
from tests.support.images import TinyImage
from tests.support.requirements import need_root

_NAME = "team/app:1.0"


def _layout(tool: Tools, host: Callable[[str], Commands]) -> Tool:
    """umoci, beside the layout of what docket pulled."""
    umoci = tool("umoci")
    output = umoci.folder / "pulled.tar"
    host("a")("pull", _NAME, "--output", output)
    with tarfile.open(output) as archive:
        archive.extractall(umoci.folder / "layout", filter="data")
    return umoci


def test_umoci_unpacks_what_docket_pulled(
    tool: Tools, pushed: str, host: Callable[[str], Commands], image: TinyImage
) -> None:
    """The layout has the tag; unpacked, the files are those of the layers."""
    need_root()
    umoci = _layout(tool, host)
    assert umoci("ls", "--layout", "layout") == "1.0"
    umoci("unpack", "--image", "layout:1.0", "bundle")
    unpacked = {path.name for path in (umoci.folder / "bundle" / "rootfs").iterdir()}
    assert unpacked == {f"app-{number}.txt" for number in range(len(image.layers))}


def test_docket_pushes_what_umoci_made(
    tool: Tools, pushed: str, host: Callable[[str], Commands], image: TinyImage
) -> None:
    """A layer that umoci adds is uploaded alone; the image is the one that umoci made."""
    need_root()
    umoci = _layout(tool, host)
    umoci("unpack", "--image", "layout:1.0", "bundle")
    (umoci.folder / "bundle" / "rootfs" / "new").write_text("new\n")
    umoci("repack", "--image", "layout:2.0", "bundle")
    umoci("config", "--image", "layout:2.0", "--config.label", "a=b")
    umoci("rm", "--image", "layout:1.0")
    umoci("gc", "--layout", "layout")
    # the row for `docker load` is that of the image that was removed
    (umoci.folder / "layout" / "manifest.json").unlink(missing_ok=True)
    report = host("b")("push", "team/app:2.0", "--archive", umoci.folder / "layout")
    assert [layer["source"] == "uploaded" for layer in report["layers"]] == [
        *(False for _ in image.layers),
        True,
    ]
    crane = tool("crane")
    config = json.loads(crane("config", f"{pushed.rpartition(':')[0]}:2.0"))
    assert config["config"]["Labels"] == {"a": "b"}
