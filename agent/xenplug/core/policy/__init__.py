"""The policy language: YAML text becomes a Policy value, or a list of problems with file, line and column."""
