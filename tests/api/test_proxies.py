"""Behind reverse proxies: the real client, the registry's own URL, and a path prefix."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import pytest

from docket.api.middleware.forwarded import ProxyHeaders, PublicUrl, public_url
from docket.api.middleware.networks import Networks, parse_address
from docket.errors import InvalidOption
from docket.torrent.metainfo import parse_metainfo
from tests.api.conftest import running
from tests.api.http import Registry
from tests.store.samples import image
from tests.support.processes import free_port
from tests.support.requirements import missing

ONE = image("layer")


class Seen:
    """An application that remembers what it was called with."""

    def __init__(self) -> None:
        self.url = self.client = self.path = self.seed = ""

    async def __call__(self, scope, _receive, send) -> None:  # type: ignore[no-untyped-def]
        self.url, self.client = str(public_url(scope)), scope["client"][0]
        self.path, self.seed = scope["path"], scope["server"][0]
        headers = [(b"location", b"/v2/a"), (b"link", b'</v2/b>; rel="next"')]
        await send({"type": "http.response.start", "status": 200, "headers": headers})


async def call(
    *headers: tuple[str, str],
    client: str = "10.0.0.1",
    path: str = "/v2/",
    trusted: str = "10.0.0.0/8",
    external: str = "",
    server: str = "10.0.0.9",
) -> tuple[Seen, dict[bytes, bytes]]:
    """What an application behind the middleware sees of a request, and the response's headers."""
    seen = Seen()
    app = ProxyHeaders(
        seen,
        trusted=Networks.parse([trusted] if trusted else []),
        external_url=PublicUrl.parse(external) if external else None,
    )
    sent = {}

    async def send(message) -> None:  # type: ignore[no-untyped-def]
        sent.update(message["headers"])

    scope = {
        "type": "http",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "client": (client, 4000),
        "server": (server, 8000),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
    }
    await app(scope, None, send)  # type: ignore[arg-type]
    return seen, sent


def run(*headers: tuple[str, str], **options: str) -> Seen:
    """The same, at once."""
    import asyncio

    return asyncio.run(call(*headers, **options))[0]


FOR, PROTO, HOST = "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9, 10.1.1.1", "203.0.113.9"),
        ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("203.0.113.9:1234", "203.0.113.9"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("unknown", "10.0.0.1"),
        ("", "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_that_no_trusted_proxy_is(chain: str, client: str) -> None:
    """Each proxy adds to the end; what a client wrote itself stands before that."""
    assert run((FOR, chain)).client == client


def test_headers_of_somebody_else_are_ignored() -> None:
    """Not even this machine's own address is trusted by default."""
    headers = ((FOR, "6.6.6.6"), (PROTO, "https"), (HOST, "evil"), ("X-Forwarded-Prefix", "/x"))
    for client, trusted in (("127.0.0.1", ""), ("192.0.2.1", "10.0.0.0/8")):
        seen = run(("Host", "here:8000"), *headers, client=client, trusted=trusted)
        assert (seen.client, seen.url) == (client, "http://here:8000")


@pytest.mark.parametrize(
    ("headers", "url"),
    [
        (((PROTO, "https"), (HOST, "reg.example")), "https://reg.example"),
        (((PROTO, "https"), (HOST, "reg.example"), ("X-Forwarded-Port", "8443")),
         "https://reg.example:8443"),
        (((PROTO, "https"), (HOST, "reg.example"), ("X-Forwarded-Port", "443")),
         "https://reg.example"),
        (((PROTO, "https"), ("X-Forwarded-Prefix", "/docket/")), "https://here/docket"),
        ((("Forwarded", 'for=203.0.113.9;proto=https;host="reg.example:8443"'),),
         "https://reg.example:8443"),
        (((PROTO, "gopher"), (HOST, "a b/c"), ("X-Forwarded-Prefix", "/a\\b")), "http://here"),
    ],
)  # fmt: skip
def test_the_url_that_a_trusted_proxy_was_called_at(
    headers: tuple[tuple[str, str], ...], url: str
) -> None:
    """X-Forwarded-* of nginx, Traefik and Caddy, or Forwarded (RFC 7239); nonsense is left out."""
    assert run(("Host", "here"), *headers).url == url


def test_a_prefix_that_is_passed_on_or_cut_off() -> None:
    """Both ways of a proxy lead to the same path; Location and Link have the prefix."""
    import asyncio

    for path in ("/docket/v2/a/tags/list", "/v2/a/tags/list"):
        seen, headers = asyncio.run(call(path=path, external="https://reg.example/docket"))
        assert seen.path == "/v2/a/tags/list"
        assert seen.url == "https://reg.example/docket"
        assert headers[b"location"] == b"/docket/v2/a"
        assert headers[b"link"] == b'</docket/v2/b>; rel="next"'


def test_the_seed_is_not_at_a_proxys_loopback_address() -> None:
    """Through a proxy on this machine the socket's address is 127.0.0.1: no peer can use it."""
    headers = ((FOR, "203.0.113.9"), ("Host", "192.0.2.7:80"))
    seen = run(*headers, client="127.0.0.1", trusted="127.0.0.1", server="127.0.0.1")
    assert seen.seed == "192.0.2.7"
    assert run(*headers).seed == "10.0.0.9"


@pytest.mark.parametrize(
    "text", ["reg.example", "ftp://a", "http://", "http://a b", "http://a/?q", "http://a:x", "//a"]
)
def test_external_urls_that_are_none(text: str) -> None:
    """An error names the option's form."""
    with pytest.raises(InvalidOption):
        PublicUrl.parse(text)


@pytest.mark.parametrize("text", ["10.0.0.0/33", "example", "10.0.0.0/8/8", "1.2.3"])
def test_networks_that_are_none(text: str) -> None:
    """A network is in CIDR notation, or an address."""
    with pytest.raises(InvalidOption):
        Networks.parse([text])


def test_networks_contain_addresses_as_sockets_spell_them() -> None:
    """IPv4 over an IPv6 socket, zones of link-local addresses."""
    networks = Networks.parse(["10.0.0.0/8, fe80::/10", "::ffff:192.0.2.0/120"])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fe80::1%eth0", "192.0.2.9"):
        assert address in networks
    for address in ("11.0.0.1", "::1", "", "x", "192.0.3.1"):
        assert address not in networks
    assert parse_address("\u0661.2.3.4") is None


# -- nginx


@contextmanager
def nginx(folder: Path, registry: Registry) -> Iterator[str]:
    """The documented configuration of docs/operations.md, with this registry behind it; its URL."""
    program = shutil.which("nginx") or missing("nginx")
    port = free_port()
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    server = text.partition("```nginx\n")[2].partition("```")[0]
    assert "proxy_pass http://127.0.0.1:8000" in server
    server = server.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    server = "\n".join(line for line in server.splitlines() if "ssl_certificate" not in line)
    server = server.replace("http://127.0.0.1:8000", registry.url)
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; client_body_temp_path {folder}/body;\n"
        f"proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;\n"
        f"uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n{server}\n}}\n"
    )
    with subprocess.Popen([program, "-p", folder, "-c", configuration]) as process:
        try:
            url = f"http://127.0.0.1:{port}/docket/"
            deadline = time.monotonic() + 30
            while True:
                try:
                    registry.pool.request("GET", f"{url}v2/")
                    break
                except Exception:
                    assert time.monotonic() < deadline and process.poll() is None
                    time.sleep(0.02)
            yield url
        finally:
            process.terminate()


def test_behind_nginx(tmp_path: Path) -> None:
    """docs/operations.md § nginx: pushes, pages and torrents work behind it, under a prefix."""
    external = "https://registry.example/docket"
    options = ("--external-url", external, "--trusted-proxies", "127.0.0.1")
    with (
        running(tmp_path / "store", *options) as registry,
        nginx(tmp_path, registry) as url,
    ):
        front = Registry(url, registry.location, registry.pool)
        location = front.ask("POST", f"{url}v2/app/blobs/uploads/").headers["Location"]
        assert location.startswith("/docket/v2/app/blobs/uploads/")
        blob = ONE.blobs[0]
        from docket.oci.digest import Digest

        done = front.ask("PUT", urljoin(url, location), body=blob, digest=Digest.of(blob))
        assert done.status == 201
        assert front.ask("GET", urljoin(url, done.headers["Location"])).body == blob
        registry.repository("app").push(ONE, "v1")
        registry.repository("app").push(ONE, "v2")
        page = front.ask("GET", f"{url}v2/app/tags/list?n=1")
        assert page.headers["Link"].startswith("</docket/v2/app/tags/list?")
        torrent = front.ask("GET", f"{url}v2/app/_docket/torrent/v1")
        assert parse_metainfo(torrent.body).announce == f"{external}/announce"
