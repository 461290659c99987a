"""Tests of the API over HTTP, against a registry in a process of its own."""
