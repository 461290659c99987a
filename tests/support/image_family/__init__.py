"""A family of real images: built from Debian, PyPI and npm packages."""
