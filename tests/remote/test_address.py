"""What ``-h`` may say, and what it means."""

from __future__ import annotations

import pytest

from docket.errors import InvalidAddress
from docket.remote.address import RegistryAddress, basic_authorization

URLS = {
    "localhost": "http://localhost:8000",
    "registry.example:5000": "http://registry.example:5000",
    "REGISTRY.example": "http://registry.example:8000",
    "http://10.1.2.3": "http://10.1.2.3:8000",
    "http://10.1.2.3:80": "http://10.1.2.3:80",
    "https://r.example": "https://r.example",
    "https://r.example:443/": "https://r.example",
    "https://r.example:8443": "https://r.example:8443",
    "::1": "http://[::1]:8000",
    "[::1]": "http://[::1]:8000",
    "[::1]:5000": "http://[::1]:5000",
    "http://[2001:DB8::0:1]:5000": "http://[2001:db8::1]:5000",
    "fe80::1%eth0": "http://[fe80::1%25eth0]:8000",
    "http://[fe80::1%25eth0]:5000": "http://[fe80::1%25eth0]:5000",
    "r.example/images": "http://r.example:8000/images",
    "http://r.example:80//a//b/": "http://r.example:80/a/b",
    "my_registry:8000": "http://my_registry:8000",
    "bücher.example": "http://xn--bcher-kva.example:8000",
    "https://user:pass@r.example/team": "https://r.example/team",
    "user@r.example": "http://r.example:8000",
}

REFUSED = [
    *("", "http://", ":5000", "ftp://r.example", "unix:///run/docker.sock", "r.example:0"),
    *("r.example:65536", "r.example:x", "r.example:\u0668\u0660", "[::1", "[fe80::zz]:1", "a b"),
    *("r.example?x=1", "r.example/#top", "r.example/../x", "r.example/%2e%2e", "r\n.example"),
    *("http://http://r.example", "a\\b", "-r.example", "r..\u00fc.example", "x" * 300),
    "http://us%3Aer:pass@r.example",
]


@pytest.mark.parametrize("text", URLS)
def test_an_address_of_a_registry(text: str) -> None:
    """Scheme, port and brackets may be left out; what is printed means the same address."""
    address = RegistryAddress.parse(text)
    assert str(address) == URLS[text]
    assert str(RegistryAddress.parse(str(address))) == str(address)


@pytest.mark.parametrize("text", REFUSED)
def test_an_address_that_is_none(text: str) -> None:
    """It is refused before anything is sent, in a sentence that gives the forms."""
    with pytest.raises(InvalidAddress, match=r"is not a valid address: .*give a host"):
        RegistryAddress.parse(text)


def test_a_port_beside_the_address() -> None:
    """-p counts where -h has no port, with each scheme."""
    assert RegistryAddress.parse("r.example", 5000).port == 5000
    assert RegistryAddress.parse("r.example:80", 5000).port == 80
    assert RegistryAddress.parse("https://r.example", 5000).port == 5000
    assert RegistryAddress.parse("::1", 5000).port == 5000


def test_credentials_are_sent_and_never_shown() -> None:
    """RFC 7617: percent-encoding is undone; no message and no URL has the password."""
    address = RegistryAddress.parse("https://me:p%40ss%3A%C3%BC@r.example")
    assert address.authorization == basic_authorization("me", "p@ss:\u00fc")
    assert "p@ss" not in f"{address} {address!r} {address.url('/v2/')}"
    for text in ("ftp://me:secret@r.example", "me:secret@r.example:0", "http://me:secret@[x"):
        with pytest.raises(InvalidAddress) as caught:
            RegistryAddress.parse(text)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v2/app/tags/list", "http://r.example:8000/images/v2/app/tags/list"),
        ("/images/v2/app/x?a=1", "http://r.example:8000/images/v2/app/x?a=1"),
        ("http://r.example:8000/v2/x?a=1", "http://r.example:8000/images/v2/x?a=1"),
        ("http://other.example/v2/x", "http://other.example/v2/x"),
        ("//other.example/v2/x", "http://other.example/v2/x"),
    ],
)
def test_a_location_behind_a_prefix(target: str, expected: str) -> None:
    """A front that removes the prefix passes the registry's Locations on without it."""
    assert RegistryAddress.parse("r.example/images").url(target) == expected
