"""Sans-IO cores: bytes and values in, values out; no socket, clock, file or die."""
