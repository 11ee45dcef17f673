"""`python -m xenplug`: the same as the console script."""

from xenplug.cli.main import entry

entry()
