"""The LMDB index and the journal beside it."""
