"""Composition root: owns the clock, the dice and the root nursery."""
