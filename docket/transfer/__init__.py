"""One story each: push an image, or pull it."""
