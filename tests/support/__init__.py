"""Real engines, networks and trackers that tests run against."""
