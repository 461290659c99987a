"""A host's agent: engines pull through it, other hosts fetch from it, the registry orders it."""
