"""What the API needs for images of other registries."""
