"""What holds where nothing else is asked for: commands show it without loading what it is for."""

PIN_SECONDS = 3600.0
"""How long a positive answer about a blob holds."""

IDLE_SECONDS = 300.0
"""How long a torrent without peers stays in the session."""

SCRUB_RATE = 20_000_000
"""Bytes a second that a registry's scrub reads at most."""

PATIENCE = 5.0
"""Seconds without a byte before a fetch gives up."""
