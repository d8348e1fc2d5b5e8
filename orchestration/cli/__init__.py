"""The `autodo` command."""
