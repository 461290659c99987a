"""The values of the OCI specifications: digests, references, manifests."""
