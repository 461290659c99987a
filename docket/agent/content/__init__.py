"""Content stores: the folders in which container engines of this host keep blobs."""
