"""The tamper-evident record: leaves, tiles, checkpoints, proofs."""
