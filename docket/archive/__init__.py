"""Image archives: read what docker, podman and skopeo write; write what every engine loads."""

from docket.archive.read import Image, Layer, read
from docket.archive.write import LoadLayer, load_archive, load_manifest

__all__ = ["Image", "Layer", "LoadLayer", "load_archive", "load_manifest", "read"]
