"""Loads on one registry process."""
