"""What a store must survive: kills, power cuts, gc against pushers, full disks."""
