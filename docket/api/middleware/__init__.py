"""What every request passes before its route: errors, proxies, and who may change something."""
