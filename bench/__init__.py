"""The suite that keeps the Hub fast: load, peers, measurements, and the record of what was run."""
