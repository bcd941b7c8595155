"""What stops a node from starting, told in one line that says what to do."""


class StartError(Exception):
    """Say in one line why the node or the sandbox cannot start, and what to do about it."""
