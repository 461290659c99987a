"""Fuzzing of all that docket reads from outside; ``python -m tests.fuzz --help``."""
