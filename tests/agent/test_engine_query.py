"""Questions to real engines: what they are, and which images their containers use."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from functools import partial

import pytest

from docket.agent.host.engine_query import engine_summary, images_in_use
from docket.archive import load_archive
from docket.engine import Engine as DocketEngine
from docket.errors import EngineError, EngineUnreachable
from tests.support import engines
from tests.support.engines import Engine
from tests.support.images import image_of, layer_tar
from tests.support.newer_docker import newer_dockerd
from tests.support.processes import short_folder

Start = Callable[..., AbstractContextManager[Engine]]

KINDS: dict[str, Start] = {
    "docker": partial(engines.dockerd, storage_driver="vfs"),
    "podman": engines.podman_service,
    "docker 28, containerd store": partial(newer_dockerd, containerd_store=True, suite="sid"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_containers_are_in_use_even_if_they_are_stopped(kind: str) -> None:
    """Their layers say which: in the containerd store the engine names manifests, not configs."""
    used = image_of([layer_tar("base"), layer_tar("used")], "used:1.0")
    other = image_of([layer_tar("base"), layer_tar("other")], "other:1.0")
    with short_folder() as place:
        root = place / "engine"
        root.mkdir()
        with KINDS[kind](root) as engine:
            variables = {"DOCKER_HOST": engine.host}
            summary = engine_summary(variables)
            assert summary.name == kind.split(maxsplit=1)[0].rstrip(",")
            assert summary.version[0].isdigit()
            assert summary.is_containerd_store == ("containerd" in kind)
            with closing(DocketEngine.connect(engine.host)) as loading:
                for image in (used, other):
                    loading.load(load_archive(image.config, image.load_layers(), [image.name]))
            assert images_in_use(variables) == set()
            engine.client.containers.create("used:1.0", ["/never-run"])
            assert images_in_use(variables) == {used.diff_ids}


def test_a_host_without_an_engine_is_told_from_one_that_does_not_answer() -> None:
    """Without one no container uses anything; one that is down may have containers."""
    with short_folder() as place:
        with pytest.raises(EngineUnreachable):
            engine_summary({"DOCKER_CONTEXT": "none", "HOME": str(place)})
        with pytest.raises(EngineError, match="doesn't answer") as failed:
            images_in_use({"DOCKER_HOST": f"unix://{place}/d.sock"})
        assert not isinstance(failed.value, EngineUnreachable)
