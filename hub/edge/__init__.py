"""Sockets inwards: listeners, TLS, connections, limits, draining, routing."""
