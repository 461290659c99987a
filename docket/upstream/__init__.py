"""Images of other registries: fetched on request, and stored like pushed ones."""
