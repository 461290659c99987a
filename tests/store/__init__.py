"""Tests of the store, on real files and a real LMDB."""
