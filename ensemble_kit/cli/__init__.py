"""The command line: one file a command, each a page."""
