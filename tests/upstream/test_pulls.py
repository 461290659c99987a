"""Images that another registry has, pulled through this one."""

from __future__ import annotations

from tests.support.images import image_of, layer_tar
from tests.upstream.conftest import MB, Start, Upstream, pulled

APP = image_of([layer_tar("base", size=3 * MB), layer_tar("app", size=MB)], "app:1.0")
OTHER = image_of([layer_tar("base", size=3 * MB), layer_tar("other", size=MB)], "app:2.0")


def test_an_image_of_an_upstream_is_fetched_stored_and_served(
    upstream: Upstream, docket: Start
) -> None:
    """By tag and digest, under the upstream's name; then it is this registry's own."""
    digest = upstream.push("acme/app", "1.0", APP)
    with docket(upstream.url) as registry:
        by_tag = pulled(registry, "ghcr.io/acme/app", "1.0")
        assert pulled(registry, "ghcr.io/acme/app", digest) == by_tag
        tags = registry.ask("GET", "/v2/ghcr.io/acme/app/tags/list").json
        assert tags == {"name": "ghcr.io/acme/app", "tags": ["1.0"]}
        (row,) = registry.ask("GET", "/v2/_docket/images").json["images"]
        assert (row["name"], row["digest"]) == ("ghcr.io/acme/app", str(digest))
