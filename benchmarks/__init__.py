"""Measurements of docket with real images, real engines and real networks."""
