"""Maintenance of a registry while it serves: gc and fsck."""
