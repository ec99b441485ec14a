"""What a command, or a notebook, does from its options to its answer."""
