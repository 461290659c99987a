"""Helm: charts in the registry."""

from __future__ import annotations

import pytest

from tests.clients.conftest import ClientFailed, Tools


@pytest.mark.parametrize("name", ["helm3", "helm4"])
def test_helm_pushes_and_pulls_a_chart(tool: Tools, address: str, name: str) -> None:
    """A chart comes back byte for byte, by version and as the newest; another one is refused."""
    helm = tool(name)
    for version in ("0.1.0", "0.2.0"):
        helm("create", "app")
        helm("package", "app", "--version", version)
        helm("push", f"app-{version}.tgz", f"oci://{address}/charts", "--plain-http")
    sent = {path.name: path.read_bytes() for path in helm.folder.glob("*.tgz")}
    where = (f"oci://{address}/charts/app", "--plain-http", "-d", "pulled")
    (helm.folder / "pulled").mkdir()
    helm("pull", *where, "--version", "0.1.0")
    helm("pull", *where)
    pulled = {path.name: path.read_bytes() for path in (helm.folder / "pulled").iterdir()}
    assert pulled == sent
    assert "version: 0.2.0" in helm("show", "chart", where[0], "--plain-http")
    with pytest.raises(ClientFailed, match="not found"):
        helm("pull", *where, "--version", "9.9.9")
