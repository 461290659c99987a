"""docket: a container registry that deploys images through BitTorrent, layer by layer."""

__version__ = "0.1.0"
