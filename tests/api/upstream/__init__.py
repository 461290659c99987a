"""Tests of the API of images of other registries."""
