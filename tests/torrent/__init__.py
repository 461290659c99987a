"""Torrents of images: pieces, metainfo, the peer table, and real swarms on loopback."""
