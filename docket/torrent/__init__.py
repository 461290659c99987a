"""Torrents of images: piece hashes, metainfo, the tracker's peer table and the swarm."""
