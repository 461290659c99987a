"""The suite for deploy sizes: its sections, bounds, plots and page."""
