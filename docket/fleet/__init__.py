"""The fleet as the registry sees it: connected hosts, and deploys to them."""
