"""BitTorrent peers: libtorrent sessions, downloads and seeds."""
