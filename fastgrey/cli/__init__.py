"""The command line: one file a command, named after it."""
