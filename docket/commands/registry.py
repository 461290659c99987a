"""``docket registry``: serve images."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from docket import config
from docket.commands import terminal
from docket.commands.options import limit_options, option, parse_duration, zone_option
from docket.config import IDLE_SECONDS, PIN_SECONDS, SCRUB_RATE
from docket.errors import OutputError

_DAY = 86400


@click.command("registry", short_help="Serve images: registry, tracker and seed.")
@option(
    "--bind",
    default="0.0.0.0",
    show_default=True,
    help="Address to listen on.",
)
@option(
    "-p",
    "--port",
    default=8000,
    type=click.IntRange(0, 65535),
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@option(
    "--peer-port",
    default=0,
    type=click.IntRange(0, 65535),
    show_default=True,
    help="BitTorrent port of the registry's seed; 0 takes a free one.",
)
@option(
    "-l",
    "--location",
    type=click.Path(file_okay=False, path_type=Path),
    help="The store; /var/local/docket for root, else ~/.local/share/docket/registry.",
)
@option(
    "-t",
    "--tracker",
    default="",
    metavar="HOST:PORT",
    help="Tracker to use instead of the registry's own.",
)
@option(
    "--advertise",
    default="",
    metavar="HOST",
    help="Address peers should use for the seed, if it is behind NAT.",
)
@zone_option("Zone of the registry's seed; by default its network.")
@option(
    "--pin-time",
    default=PIN_SECONDS,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long a blob is protected from gc after a client was told that it exists.",
)
@option(
    "--idle-timeout",
    default=IDLE_SECONDS,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long an image is seeded after its last peer left.",
)
@option(
    "--external-url",
    default="",
    metavar="URL",
    help="URL at which clients reach the registry, if it is behind a reverse proxy.",
)
@option(
    "--trusted-proxies",
    multiple=True,
    metavar="CIDR",
    help="Networks of proxies whose X-Forwarded-* headers are believed; none by default.",
)
@option(
    "--read-only",
    is_flag=True,
    help="Refuse every request that changes something.",
)
@option(
    "--writes-from",
    multiple=True,
    metavar="CIDR",
    help="Networks whose clients may push, delete and run gc; all by default.",
)
@option(
    "--upstream",
    "upstreams",
    multiple=True,
    metavar="NAME[=URL]",
    help="Fetch images below NAME/, such as docker.io, from that registry; can be repeated.",
)
@option(
    "--upstream-auth",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Credentials for upstreams: a docker config.json that only its owner can read.",
)
@option(
    "--upstream-ttl",
    default="10m",
    show_default=True,
    callback=parse_duration,
    metavar="TIME",
    help="How long an upstream's tag is served before it is compared with the upstream again.",
)
@option(
    "--upstream-unused",
    callback=parse_duration,
    metavar="TIME",
    help="Remove upstreams' images that nobody has pulled for this long; by default they stay.",
)
@limit_options
@option(
    "--scrub-interval",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0),
    metavar="DAYS",
    help="Days between full re-reads of all blobs to detect bit rot; 0 disables.",
)
@option(
    "--scrub-rate",
    default=SCRUB_RATE,
    show_default=True,
    type=click.IntRange(1),
    metavar="BYTES/S",
    help="Read rate limit of those re-reads.",
)
@option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the address as one line of JSON.",
)
def registry(
    bind: str,
    port: int,
    peer_port: int,
    location: Path | None,
    tracker: str,
    advertise: str,
    zone: str,
    external_url: str,
    trusted_proxies: tuple[str, ...],
    read_only: bool,
    writes_from: tuple[str, ...],
    upstreams: tuple[str, ...],
    upstream_auth: Path | None,
    upstream_ttl: float,
    upstream_unused: float | None,
    pin_time: float,
    idle_timeout: float,
    scrub_interval: float,
    scrub_rate: int,
    max_upload: int,
    max_download: int,
    as_json: bool,
) -> None:
    """Serve images: registry, tracker and seed in one process, until Ctrl-C or SIGTERM."""
    # a web server that no other command needs: a host's pull begins earlier without it
    from docket.api import AccessPolicy, Networks, PublicUrl
    from docket.daemon.registry import ServerOptions, serve
    from docket.upstream.names import parse_upstreams

    store_location = location or config.registry_location()
    options = ServerOptions(
        location=store_location,
        bind=bind,
        port=port,
        peer_port=peer_port,
        tracker=config.tracker_url(tracker) if tracker else "",
        advertise=advertise,
        zone=zone,
        pin_seconds=pin_time,
        idle_seconds=idle_timeout,
        scrub_seconds=scrub_interval * _DAY,
        scrub_rate=scrub_rate,
        max_upload=max_upload,
        max_download=max_download,
        external_url=PublicUrl.parse(external_url) if external_url else None,
        trusted_proxies=Networks.parse(trusted_proxies),
        upstreams=parse_upstreams(upstreams),
        upstream_auth=upstream_auth,
        upstream_ttl=upstream_ttl,
        upstream_unused=upstream_unused,
        access=AccessPolicy(read_only, Networks.parse(writes_from) if writes_from else None),
    )

    def on_ready(url: str) -> None:
        # a registry whose output is closed or full serves nevertheless
        with contextlib.suppress(OutputError, BrokenPipeError):
            if as_json:
                terminal.print_json({"url": url, "location": str(store_location)})
            else:
                terminal.print_line(f"docket registry at {url}, images in {store_location}")

    serve(options, on_ready=on_ready)
