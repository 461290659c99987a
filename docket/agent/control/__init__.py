"""Commands of a host go through its agent, by a Unix socket."""
