"""A whole ecosystem on loopback: directory, bank, TPPs; never in production."""
