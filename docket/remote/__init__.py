"""A registry, spoken to over HTTP."""
