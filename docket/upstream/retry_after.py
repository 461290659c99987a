"""How long a server wants not to be asked (RFC 9110 § 10.2.3)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime

_DEFAULT, _LEAST, _MOST = 10.0, 1.0, 3600.0


def seconds_to_wait(headers: Mapping[str, str]) -> float:
    """The seconds of Retry-After, from 1 to 3600; 10 without it."""
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    seconds = _DEFAULT
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    elif text:
        with suppress(ValueError, OverflowError):
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
    return min(max(seconds, _LEAST), _MOST)
