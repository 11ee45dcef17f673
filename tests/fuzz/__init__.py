"""Fuzzers of all parsers of external data; `python -m tests.fuzz --help`."""
