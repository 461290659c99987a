"""Tests of images that are fetched from other registries."""
