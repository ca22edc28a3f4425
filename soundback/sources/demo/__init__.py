"""A rendered world behind YouTube-8M's own endpoints, on loopback."""
