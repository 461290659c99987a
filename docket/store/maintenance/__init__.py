"""Garbage collection, checks and repair of a store."""
