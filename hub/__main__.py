"""Run the command line: ``python -m hub``."""
