"""Which proxy leads where, by the variables that curl reads."""

from __future__ import annotations

import pytest

from docket.errors import InvalidAddress
from docket.remote.proxies import proxy_for

PROXY = "http://proxy.example:3128"


def url(scheme: str, variables: dict[str, str], host: str = "r.example") -> str | None:
    """The proxy to *host*, at port 8000."""
    proxy = proxy_for(scheme, host, 8000, variables)
    return proxy.url if proxy else None


@pytest.mark.parametrize(
    ("scheme", "variables", "expected"),
    [
        ("http", {}, None),
        ("http", {"http_proxy": PROXY}, PROXY),
        ("http", {"HTTP_PROXY": PROXY}, PROXY),
        ("http", {"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, None),
        ("http", {"HTTP_PROXY": "http://a:1", "http_proxy": PROXY}, PROXY),
        ("http", {"HTTP_PROXY": PROXY, "http_proxy": ""}, None),
        ("http", {"https_proxy": PROXY}, None),
        ("https", {"HTTPS_PROXY": PROXY}, PROXY),
        ("https", {"http_proxy": PROXY}, None),
        ("https", {"ALL_PROXY": PROXY}, PROXY),
        ("http", {"all_proxy": "http://a:1", "http_proxy": PROXY}, PROXY),
        ("http", {"http_proxy": "proxy.example"}, "http://proxy.example:1080"),
        ("http", {"http_proxy": "https://proxy.example"}, "https://proxy.example:443"),
        ("http", {"http_proxy": "http://[::1]:3128/"}, "http://[::1]:3128"),
    ],
)
def test_the_variable_that_counts(
    scheme: str, variables: dict[str, str], expected: str | None
) -> None:
    """Small letters before capitals, the scheme's own before all_proxy, defaults of curl."""
    assert url(scheme, variables) == expected


@pytest.mark.parametrize(
    ("exceptions", "host", "is_direct"),
    [
        ("*", "r.example", True),
        ("example", "r.example", True),
        (".example", "r.example", True),
        ("*.example", "r.example", True),
        ("R.EXAMPLE", "r.example", True),
        ("r.example.", "r.example", True),
        ("ample", "r.example", False),
        ("x.r.example", "r.example", False),
        ("a.example, r.example", "r.example", True),
        ("a.example r.example", "r.example", True),
        ("r.example:8000", "r.example", True),
        ("r.example:8001", "r.example", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:8000", "10.1.2.3", True),
        ("10.1.2.3:80", "10.1.2.3", False),
        ("2.3", "10.1.2.3", False),
        ("::1", "::1", True),
        ("[::1]", "::1", True),
        ("[::1]:8000", "::1", True),
        ("[::1]:80", "::1", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("0.0.0.0/0", "::1", False),
        ("10.0.0.0/99", "10.1.2.3", False),
        ("", "r.example", False),
        (",", "r.example", False),
    ],
)
def test_exceptions(exceptions: str, host: str, is_direct: bool) -> None:
    """no_proxy: names with all below them, addresses, blocks, ports, or everything."""
    for name in ("no_proxy", "NO_PROXY"):
        variables = {"http_proxy": PROXY, name: exceptions}
        assert (url("http", variables, host) is None) == is_direct


def test_a_proxy_with_a_password() -> None:
    """It is sent to the proxy, and shown nowhere."""
    proxy = proxy_for("http", "r.example", 80, {"http_proxy": "http://me:secret@proxy.example:1"})
    assert proxy
    assert proxy.authorization.startswith("Basic ")
    assert "secret" not in f"{proxy!r} {proxy.url}"


@pytest.mark.parametrize("text", ["socks5h://me:secret@p.example:1080", "http://", "http://p:x"])
def test_a_proxy_that_docket_cannot_use(text: str) -> None:
    """It is refused: going around a proxy unasked may be forbidden."""
    with pytest.raises(InvalidAddress) as caught:
        proxy_for("http", "r.example", 80, {"all_proxy": text})
    assert "secret" not in str(caught.value)
