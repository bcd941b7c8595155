"""Words and values: what every other package passes on; imports nothing of ours."""
