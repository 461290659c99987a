"""The OCI distribution API 1.1 (version check, blobs, uploads, manifests, lists)."""
