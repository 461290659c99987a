"""The agent as a citizen of its host: status, limits, retention, and what the engine uses."""
