"""One image in a registry's folder, which every test serves a copy of."""

from __future__ import annotations

import pytest

from tests.support.images import release
from tests.swarm.network import Stored, stored


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """An image of 20 MB in three layers."""
    layers = [("large", 30_000_000), ("middle", 8_000_000), ("small", 2_000_000)]
    return stored(tmp_path_factory.mktemp("image"), release("app:1.0", layers))
