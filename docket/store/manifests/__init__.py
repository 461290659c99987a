"""Manifests, tags and referrers, and the edges that keep blobs."""
