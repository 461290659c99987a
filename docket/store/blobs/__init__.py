"""Blob files: uploads, downloads, and what reading them gives."""
