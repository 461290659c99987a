"""Commands about a registry's hosts and deploys."""
