"""The tracker: announces, its peer table, and which peers it returns."""
