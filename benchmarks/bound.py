"""The shortest time in which a fleet can have an image, by the rate of its links."""

from __future__ import annotations

import math

HEADERS = 1.05
"""Bytes on a link for each byte of payload: TCP, IP, Ethernet and BitTorrent."""


def t_star(payload: int, *, pieces: int, hosts: int, mbit: float) -> float:
    """T*: seconds until *hosts* have *payload* bytes if every link of *mbit* Mb/s were always full.

    S/B · (1 + ⌊log2 N⌋/M), for S bytes in M pieces, links of B and N hosts; without headers.
    """
    one_host = payload * 8 / (mbit * 1e6)
    return one_host * (1 + math.floor(math.log2(hosts)) / pieces)
