"""The command line: the only part that touches the terminal."""
