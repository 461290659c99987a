"""Swarms of real registries and real pulls, while something fails."""
