"""Processes that serve: the registry."""
