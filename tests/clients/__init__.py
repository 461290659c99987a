"""Registry clients of other projects against a live registry: `make clients`."""
