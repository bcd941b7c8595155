"""The resource journey: verify, enforce, enrich, forward, normalise, record."""
